-- Renew the leases of a site's running requests, and of their idempotency keys. A lease that has expired stays expired.
--
-- scripts.py defines what comes in: RenewKeys, then the idempotency keys; RenewArguments, then the request ids, then the
-- stream id of each idempotency key.
-- Returns how many leases were renewed.
local DAY_MS = 86400000
local running, lease_ms, request_count = KEYS[RUNNING], ARGV[LEASE_MS], tonumber(ARGV[REQUEST_COUNT])
local now, renewed = now_us(), 0

redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
for i = ARGUMENT_COUNT + 1, ARGUMENT_COUNT + request_count do
    if redis.call('ZSCORE', running, ARGV[i]) then
        redis.call('ZADD', running, now + lease_ms * 1000, ARGV[i])
        renewed = renewed + 1
    end
end
if renewed > 0 then redis.call('PEXPIRE', running, DAY_MS) end
for i = KEY_COUNT + 1, #KEYS do
    local known_request = redis.call('GET', KEYS[i])
    local stream_id = ARGV[ARGUMENT_COUNT + request_count + i - KEY_COUNT]
    -- Only ever later: a request that was settled since keeps its key for longer than a lease.
    if known_request and string.sub(known_request, 33) == stream_id then
        redis.call('PEXPIRE', KEYS[i], lease_ms, 'GT')
    end
end
return renewed
