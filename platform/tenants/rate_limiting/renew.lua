-- Prolong the leases of a site's requests that still run, and of their idempotency keys. What lapsed stays so.
--
-- KEYS: running, then idempotency keys.
-- ARGV: lease in ms, number of requests, their ids, then the stream id of each idempotency key.
-- Returns how many are held.
local DAY = 86400000
local running, lease, requests = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now, held = clock(), 0

redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
for i = 3, 2 + requests do
    if redis.call('ZSCORE', running, ARGV[i]) then
        redis.call('ZADD', running, now + lease * 1000, ARGV[i])
        held = held + 1
    end
end
if held > 0 then redis.call('PEXPIRE', running, DAY) end
for i = 2, #KEYS do
    local known = redis.call('GET', KEYS[i])
    -- Only ever later: a request that has ended since keeps its key for longer than a lease.
    if known and string.sub(known, 33) == ARGV[requests + 1 + i] then redis.call('PEXPIRE', KEYS[i], lease, 'GT') end
end
return held
