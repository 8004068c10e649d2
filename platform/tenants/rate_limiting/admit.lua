-- Admit a request, or return why not. Nothing is written unless it is admitted, except the nonce of a request that is
-- answered with a stream or a response which exists already.
--
-- scripts.py defines what comes in and goes out: AdmitKeys, then one key per window; AdmitArguments; in `numbers`
-- AdmitNumbers, then one AdmitWindow per window. A key that the request does not use is given as the running key: that
-- holds a sorted set, so MGET reads it as absent.
-- Returns {ADMITTED, AdmittedReply and one QuotaReply per window}, {OVER_RATE_LIMIT, RejectedReply and the same},
-- {ATTACH_TO_STREAM, stream id}, {CACHE_HIT, body}, or another code alone.
local NONCE_TTL_MS, DAY_MS, WEEK_MS = 300000, 86400000, 604800000
-- Longer than any window.
local NEVER_US = 1e15

local running, request_id, body_hash = KEYS[RUNNING], ARGV[REQUEST_ID], ARGV[BODY_HASH]
local window_count = #KEYS - KEY_COUNT
local now = now_us()
local values = redis.call('MGET', unpack(KEYS))

local function consume_nonce()
    if KEYS[NONCE] ~= running then redis.call('SET', KEYS[NONCE], '', 'PX', NONCE_TTL_MS) end
end

if values[NONCE] then return {NONCE_ALREADY_USED} end
-- The hash of the body, in 32 bytes, then the stream id.
local known_request = values[IDEMPOTENCY]
if known_request and string.sub(known_request, 1, 32) ~= body_hash then return {IDEMPOTENCY_KEY_REUSED} end
-- A request that was answered from the cache has no stream.
if known_request and #known_request > 32 then
    consume_nonce()
    return {ATTACH_TO_STREAM, string.sub(known_request, 33)}
end
if values[CACHE] then
    consume_nonce()
    if KEYS[IDEMPOTENCY] ~= running then redis.call('SET', KEYS[IDEMPOTENCY], body_hash, 'PX', idempotency_ttl_ms) end
    return {CACHE_HIT, values[CACHE]}
end

local windows, firsts, totals, fullest_window, wait_us = {}, {}, {}, 0, -1
for i = 1, window_count do
    local needed, limit, span_us = read_window(i)
    local window, first, total = prune_expired(values[KEY_COUNT + i], now, span_us)
    local excess = total + needed - limit
    if excess > 0 then
        -- A window that the request can never fit into is reported before all others.
        local room_in_us = needed > limit and NEVER_US or moment_with_room(window, first, excess, now) + span_us - now
        if room_in_us > wait_us then fullest_window, wait_us = i - 1, room_in_us end
    end
    windows[i], firsts[i], totals[i] = window, first, total
end

if wait_us >= 0 then
    local reply = {pack_rejected(fullest_window, wait_us)}
    for i = 1, window_count do
        local _, limit, span_us = read_window(i)
        local reset_us = newest_moment(windows[i], firsts[i], now - span_us) + span_us - now
        reply[#reply + 1] = pack_quota(math.max(limit - totals[i], 0), reset_us)
    end
    return {OVER_RATE_LIMIT, table.concat(reply)}
end

if max_concurrency >= 0 and redis.call('ZCARD', running) >= max_concurrency then
    -- Expired leases, of processes that died, are removed only when a request needs their place.
    redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
    if redis.call('ZCARD', running) >= max_concurrency then return {OVER_CONCURRENCY_LIMIT} end
end

local reply = {pack_admitted(now)}
for i = 1, window_count do
    local needed, limit, span_us = read_window(i)
    local reset_us = span_us
    if needed > 0 then
        record(KEYS[KEY_COUNT + i], windows[i], firsts[i], totals[i], now, span_us, needed)
    else
        reset_us = newest_moment(windows[i], firsts[i], now - span_us) + span_us - now
    end
    reply[#reply + 1] = pack_quota(limit - totals[i] - needed, reset_us)
end
if takes_slot == 1 then
    redis.call('ZADD', running, now + lease_ms * 1000, request_id)
    redis.call('PEXPIRE', running, DAY_MS)
end
consume_nonce()
-- Until the request is settled this has the TTL of its lease, so that a killed process does not hold the key.
if KEYS[IDEMPOTENCY] ~= running then
    redis.call('SET', KEYS[IDEMPOTENCY], body_hash .. ARGV[STREAM_ID], 'PX', lease_ms)
end
if KEYS[OPEN_CALLS] ~= running then
    redis.call('HSET', KEYS[OPEN_CALLS], request_id, ARGV[OPEN_USAGE_RECORD])
    redis.call('PEXPIRE', KEYS[OPEN_CALLS], WEEK_MS)
end
return {ADMITTED, table.concat(reply)}
