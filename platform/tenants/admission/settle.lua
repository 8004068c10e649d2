-- End a request that was let in: give back what it did not use, take its open account away and put the rows of usage
-- where they are fetched from. A second time changes nothing, but that the rows come twice: they have keys of their own.
--
-- KEYS: running, open accounts, usage, idempotency (running again: none), then windows of tokens, then cache entries.
-- ARGV: request id, moment it was let in, tokens used beyond what was reserved (below 0: given back), number of
--       windows, number of cache entries, 'keep' or 'drop', body hash, stream id, time to keep the key in ms, then the
--       spans of the windows in us, then body and time in ms of each cache entry, then the rows.
-- Returns 1 if the request was held until now.
local RUNNING, OPEN, USAGE, IDEMPOTENCY, WINDOWS = 1, 2, 3, 4, 5
local WEEK = 604800000

local running, id = KEYS[RUNNING], ARGV[1]
local admitted, beyond = tonumber(ARGV[2]), tonumber(ARGV[3])
local windows, cached = tonumber(ARGV[4]), tonumber(ARGV[5])
local now = clock()

local was_held = redis.call('ZREM', running, id)
if was_held == 1 and beyond ~= 0 then
    for i = 1, windows do
        local key, span = KEYS[WINDOWS + i - 1], tonumber(ARGV[9 + i])
        local total, entries = count(redis.call('GET', key), now, span)
        if beyond > 0 then
            store(key, total + beyond, note(entries, now, span, beyond), span)
        else
            local given_back, left = give_back(entries, admitted, -beyond)
            if given_back > 0 then store(key, total - given_back, left, span) end
        end
    end
end

if KEYS[IDEMPOTENCY] ~= running then
    local known = redis.call('GET', KEYS[IDEMPOTENCY])
    -- Another stream's key is not ours to touch: this one was taken for dead meanwhile.
    local is_ours = not known or string.sub(known, 33) == ARGV[8]
    if is_ours and ARGV[6] == 'keep' then
        redis.call('SET', KEYS[IDEMPOTENCY], ARGV[7] .. ARGV[8], 'PX', ARGV[9])
    elseif known and is_ours then
        redis.call('DEL', KEYS[IDEMPOTENCY])
    end
end

local a = 10 + windows
for i = 0, cached - 1 do
    redis.call('SET', KEYS[WINDOWS + windows + i], ARGV[a], 'PX', ARGV[a + 1])
    a = a + 2
end

redis.call('HDEL', KEYS[OPEN], id)
if a <= #ARGV then
    redis.call('RPUSH', KEYS[USAGE], unpack(ARGV, a))
    redis.call('PEXPIRE', KEYS[USAGE], WEEK)
end
return was_held
