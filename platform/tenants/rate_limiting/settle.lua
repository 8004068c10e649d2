-- End a request that was let in: give back what it did not use, take its open account away and put the rows of usage
-- where they are fetched from. A second time changes nothing, but that the rows come twice: they have keys of their own.
--
-- KEYS: running, open accounts, usage, idempotency (running again: none), then windows of tokens, then cache entries.
-- ARGV: request id, body hash, stream id, 'keep' or 'drop', then doubles: the moment it was let in (below 0: not known, but
--       this is its lease in us), tokens used beyond what was reserved (below 0: to give back), number of windows, number of cache entries, time to keep the
--       idempotency key in ms, the spans of the windows in us, the times to keep the cache entries in ms; then the
--       bodies of the cache entries, then the rows.
-- Returns 1 if the request was held until now.
local RUNNING, OPEN, USAGE, IDEMPOTENCY, WINDOWS = 1, 2, 3, 4, 5
local WEEK = 604800000

local running, id, body, stream, numbers = KEYS[RUNNING], ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local admitted, beyond, windows, cached, kept = unpack_at('<ddddd', numbers)

if admitted < 0 then
    -- Nobody has prolonged it yet.
    local ends = redis.call('ZSCORE', running, id)
    admitted = ends and ends + admitted or 0
end

-- Give back of what was noted when it was let in. It stands in the first entry that is not older.
local function give_back(key, state, at, total, span, number)
    local low, high = 0, (#state - at + 1) / ENTRY
    while low < high do
        local middle = math.floor((low + high) / 2)
        if unpack_at('<d', state, middle * ENTRY + at) < admitted then low = middle + 1 else high = middle end
    end
    local place = low * ENTRY + at
    if place > #state then return end
    local moment, noted = unpack_at('<dd', state, place)
    number = math.min(number, noted)
    local before, changed = string.sub(state, at, place - 1), pack('<dd', moment, noted - number)
    store(key, pack('<d', total - number) .. before .. changed .. string.sub(state, place + ENTRY), span)
end

local was_held = redis.call('ZREM', running, id)
if was_held == 1 and beyond ~= 0 then
    local now = clock()
    for i = 1, windows do
        local key, span = KEYS[WINDOWS + i - 1], unpack_at('<d', numbers, 33 + 8 * i)
        local state, at, total = count(redis.call('GET', key), now, span)
        if beyond > 0 then
            note(key, state, at, total, now, span, beyond)
        elseif admitted > now - span then
            give_back(key, state, at, total, span, -beyond)
        end
    end
end

if KEYS[IDEMPOTENCY] ~= running then
    local known = redis.call('GET', KEYS[IDEMPOTENCY])
    -- Another stream's key is not ours to touch: this one was taken for dead meanwhile.
    local is_ours = not known or string.sub(known, 33) == stream
    if is_ours and ARGV[4] == 'keep' then
        redis.call('SET', KEYS[IDEMPOTENCY], body .. stream, 'PX', kept)
    elseif known and is_ours then
        redis.call('DEL', KEYS[IDEMPOTENCY])
    end
end

for i = 1, cached do
    local ttl = unpack_at('<d', numbers, 33 + 8 * (windows + i))
    redis.call('SET', KEYS[WINDOWS + windows + i - 1], ARGV[5 + i], 'PX', ttl)
end

redis.call('HDEL', KEYS[OPEN], id)
if 5 + cached < #ARGV then
    redis.call('RPUSH', KEYS[USAGE], unpack(ARGV, 6 + cached))
    redis.call('PEXPIRE', KEYS[USAGE], WEEK)
end
return was_held
