-- Let a request in, or say why not. Nothing is written unless it is let in, except the nonce of one that is answered
-- from what is known.
--
-- KEYS: running, open accounts, nonce, idempotency, cache, then the windows. One that is not asked for stands there
--       as the running key: that holds a sorted set, so it reads as absent.
-- ARGV: request id, body hash, stream id, open account, and doubles: lease in ms, 1 to hold it in running, most at once
--       (-1: any number), then for each window what is needed of it, its limit, its span in us; and the time to keep
--       the idempotency key of a request that is answered from the cache, in ms.
-- Returns {ADMITTED, doubles} with the moment in them, {LIMITED, doubles} with which window and how long to wait, and in
-- both for each window what remains and when it is empty; or another code with what belongs to it. Times are in us.
local ADMITTED, LIMITED, TOO_MANY, NONCE_USED, KEY_REUSED, ATTACH, HIT = 0, 1, 2, 3, 4, 5, 6
local RUNNING, OPEN, NONCE, IDEMPOTENCY, CACHE, WINDOWS = 1, 2, 3, 4, 5, 6
local NONCE_KEPT, DAY, WEEK = 300000, 86400000, 604800000
-- Longer than any window, in us.
local NEVER = 1e15

local KEYS, ARGV = KEYS, ARGV
local running, id, body, stream, numbers = KEYS[RUNNING], ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local lease, is_held, at_once = unpack_at('<ddd', numbers)
local now = clock()
local found = redis.call('MGET', unpack(KEYS))

local function use_up_nonce()
    if KEYS[NONCE] ~= running then redis.call('SET', KEYS[NONCE], '', 'PX', NONCE_KEPT) end
end

if found[NONCE] then return {NONCE_USED} end
local known = found[IDEMPOTENCY]
if known and string.sub(known, 1, 32) ~= body then return {KEY_REUSED} end
-- One that was answered from the cache stands for no stream.
if known and #known > 32 then
    use_up_nonce()
    return {ATTACH, string.sub(known, 33)}
end
if found[CACHE] then
    use_up_nonce()
    if KEYS[IDEMPOTENCY] ~= running then redis.call('SET', KEYS[IDEMPOTENCY], body, 'PX', ARGV[6]) end
    return {HIT, found[CACHE]}
end

local states, begins, totals, worst, wait = {}, {}, {}, 0, -1
for i = WINDOWS, #KEYS do
    local needed, limit, span = unpack_at('<ddd', numbers, 24 * (i - WINDOWS) + 25)
    local state, at, total = count(found[i], now, span)
    local over = total + needed - limit
    if over > 0 then
        -- What no waiting helps against is told before all else.
        local until_room = needed > limit and NEVER or moment_of_room(state, at, over, now) + span - now
        if until_room > wait then worst, wait = i - WINDOWS, until_room end
    end
    states[i], begins[i], totals[i] = state, at, total
end

if wait >= 0 then
    local answer = {pack('<dd', worst, wait)}
    for i = WINDOWS, #KEYS do
        local _, limit, span = unpack_at('<ddd', numbers, 24 * (i - WINDOWS) + 25)
        local reset = newest(states[i], begins[i], now - span) + span - now
        answer[#answer + 1] = pack('<dd', math.max(limit - totals[i], 0), reset)
    end
    return {LIMITED, table.concat(answer)}
end

if at_once >= 0 and redis.call('ZCARD', running) >= at_once then
    -- Those whose processes died are let go only where somebody wants their place.
    redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
    if redis.call('ZCARD', running) >= at_once then return {TOO_MANY} end
end

local answer = {pack('<d', now)}
for i = WINDOWS, #KEYS do
    local needed, limit, span = unpack_at('<ddd', numbers, 24 * (i - WINDOWS) + 25)
    local reset = span
    if needed > 0 then
        note(KEYS[i], states[i], begins[i], totals[i], now, span, needed)
    else
        reset = newest(states[i], begins[i], now - span) + span - now
    end
    answer[#answer + 1] = pack('<dd', limit - totals[i] - needed, reset)
end
if is_held == 1 then
    redis.call('ZADD', running, now + lease * 1000, id)
    redis.call('PEXPIRE', running, DAY)
end
use_up_nonce()
-- Until it ends this lives by its lease, so that a killed process does not hold the key.
if KEYS[IDEMPOTENCY] ~= running then redis.call('SET', KEYS[IDEMPOTENCY], body .. stream, 'PX', lease) end
if KEYS[OPEN] ~= running then
    redis.call('HSET', KEYS[OPEN], id, ARGV[4])
    redis.call('PEXPIRE', KEYS[OPEN], WEEK)
end
return {ADMITTED, table.concat(answer)}
