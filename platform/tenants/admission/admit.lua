-- Let a request in, or say why not. Nothing is written unless it is let in, except the nonce of one that is answered
-- from what is known.
--
-- KEYS: running, open accounts, nonce, idempotency, cache, then the windows. One that is not asked for stands there
--       as the running key: that holds a sorted set, so it reads as absent.
-- ARGV: request id, lease in ms, '1' to hold it in running, most at once ('' for any number), body hash, stream id,
--       open account, time to keep the nonce in ms; then for each window what is needed, limit, span in us.
-- Returns {ADMITTED, now, remaining, reset, …}, {LIMITED, index, wait, remaining, reset, …} (times in us), or another
-- code with what belongs to it.
local ADMITTED, LIMITED, TOO_MANY, NONCE_USED, KEY_REUSED, ATTACH, HIT = 0, 1, 2, 3, 4, 5, 6
local RUNNING, OPEN, NONCE, IDEMPOTENCY, CACHE, WINDOWS = 1, 2, 3, 4, 5, 6
local DAY, WEEK = 86400000, 604800000

local running, id, lease = KEYS[RUNNING], ARGV[1], ARGV[2]
local now = clock()
local found = redis.call('MGET', unpack(KEYS))

local function use_up_nonce()
    if KEYS[NONCE] ~= running then redis.call('SET', KEYS[NONCE], '', 'PX', ARGV[8]) end
end

if found[NONCE] then return {NONCE_USED} end
local known = found[IDEMPOTENCY]
if known then
    if string.sub(known, 1, 32) ~= ARGV[5] then return {KEY_REUSED} end
    use_up_nonce()
    return {ATTACH, string.sub(known, 33)}
end
if found[CACHE] then
    use_up_nonce()
    return {HIT, found[CACHE]}
end

local windows, worst, wait = {}, 0, -1
for i = WINDOWS, #KEYS do
    local a = 3 * (i - WINDOWS) + 9
    local needed, limit, span = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
    local total, entries = count(found[i], now, span)
    local over = total + needed - limit
    if over > 0 then
        local until_room = moment_of_room(entries, over, now) + span - now
        if until_room > wait then worst, wait = i - WINDOWS, until_room end
    end
    windows[#windows + 1] = {KEYS[i], needed, limit, span, total, entries}
end

local function tell(answer)
    for _, window in ipairs(windows) do
        local _, _, limit, span, total, entries = unpack(window)
        answer[#answer + 1] = math.max(limit - total, 0)
        answer[#answer + 1] = math.max(newest(entries, now - span) + span - now, 0)
    end
    return answer
end

if wait >= 0 then return tell({LIMITED, worst, wait}) end
if ARGV[4] ~= '' then
    redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
    if redis.call('ZCARD', running) >= tonumber(ARGV[4]) then return {TOO_MANY} end
end

for _, window in ipairs(windows) do
    local key, needed, _, span, total, entries = unpack(window)
    if needed > 0 then
        window[5], window[6] = total + needed, note(entries, now, span, needed)
        store(key, window[5], window[6], span)
    end
end
if ARGV[3] == '1' then
    if ARGV[4] == '' then redis.call('ZREMRANGEBYSCORE', running, '-inf', now) end
    redis.call('ZADD', running, now + lease * 1000, id)
    redis.call('PEXPIRE', running, DAY)
end
use_up_nonce()
-- Until it ends this lives by its lease, so that a killed process does not hold the key.
if KEYS[IDEMPOTENCY] ~= running then redis.call('SET', KEYS[IDEMPOTENCY], ARGV[5] .. ARGV[6], 'PX', lease) end
if KEYS[OPEN] ~= running then
    redis.call('HSET', KEYS[OPEN], id, ARGV[7])
    redis.call('PEXPIRE', KEYS[OPEN], WEEK)
end
return tell({ADMITTED, now})
