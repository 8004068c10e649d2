-- Settle an admitted request: release what it did not use, delete its open usage record and append its usage records to
-- the list that metering drains. Settling twice changes nothing, except that the records are appended twice: each has a
-- key of its own in Postgres.
--
-- scripts.py defines what comes in: SettleKeys, then the windows of tokens, then the cache entries (`idempotency` is the
-- running key if the request has none); SettleArguments, then the bodies of the cache entries, then the usage records;
-- in `numbers` SettleNumbers, then one SettleWindow per window, then one SettleCacheEntry per cache entry.
-- Returns 1 if the request held its slot until now.
local WEEK_MS = 604800000

local running, request_id, stream_id = KEYS[RUNNING], ARGV[REQUEST_ID], ARGV[STREAM_ID]

if admitted_at_us < 0 then
    -- The moment of admission is unknown, and this is the lease in microseconds below 0. It was never renewed.
    local lease_ends = redis.call('ZSCORE', running, request_id)
    admitted_at_us = lease_ends and lease_ends + admitted_at_us or 0
end

-- Release an amount of what was recorded on admission. That is in the first entry that is not older.
local function release(key, window, first, total, span, amount)
    local low, high = 0, (#window - first + 1) / ENTRY
    while low < high do
        local middle = math.floor((low + high) / 2)
        if unpack_at('<d', window, middle * ENTRY + first) < admitted_at_us then low = middle + 1 else high = middle end
    end
    local position = low * ENTRY + first
    if position > #window then return end
    local moment, recorded = unpack_at('<dd', window, position)
    amount = math.min(amount, recorded)
    local before, changed = string.sub(window, first, position - 1), pack('<dd', moment, recorded - amount)
    store(key, pack('<d', total - amount) .. before .. changed .. string.sub(window, position + ENTRY), span)
end

local held_slot = redis.call('ZREM', running, request_id)
if held_slot == 1 and unreserved_tokens ~= 0 then
    local now = now_us()
    for i = 1, window_count do
        local key, span_us = KEYS[KEY_COUNT + i], read_window(i)
        local window, first, total = prune_expired(redis.call('GET', key), now, span_us)
        if unreserved_tokens > 0 then
            record(key, window, first, total, now, span_us, unreserved_tokens)
        elseif admitted_at_us > now - span_us then
            release(key, window, first, total, span_us, -unreserved_tokens)
        end
    end
end

if KEYS[IDEMPOTENCY] ~= running then
    local known_request = redis.call('GET', KEYS[IDEMPOTENCY])
    -- The key of another stream must not be touched: this request's lease expired, and another took the key.
    local is_ours = not known_request or string.sub(known_request, 33) == stream_id
    if is_ours and ARGV[IDEMPOTENCY_KEY_ACTION] == 'keep' then
        redis.call('SET', KEYS[IDEMPOTENCY], ARGV[BODY_HASH] .. stream_id, 'PX', idempotency_ttl_ms)
    elseif known_request and is_ours then
        redis.call('DEL', KEYS[IDEMPOTENCY])
    end
end

for i = 1, cache_count do
    local ttl_ms = read_cache_entry(window_count + i)
    redis.call('SET', KEYS[KEY_COUNT + window_count + i], ARGV[ARGUMENT_COUNT + i], 'PX', ttl_ms)
end

redis.call('HDEL', KEYS[OPEN_CALLS], request_id)
if ARGUMENT_COUNT + cache_count < #ARGV then
    redis.call('RPUSH', KEYS[USAGE_RECORDS], unpack(ARGV, ARGUMENT_COUNT + cache_count + 1))
    redis.call('PEXPIRE', KEYS[USAGE_RECORDS], WEEK_MS)
end
return held_slot
