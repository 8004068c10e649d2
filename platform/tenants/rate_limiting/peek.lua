-- Return the state of a site's windows, and how many of its requests are running. Nothing is written.
--
-- scripts.py defines what comes in and goes out: PeekKeys, then one key per window; PeekArguments; in `numbers` one
-- PeekWindow per window. Returns a PeekReply, then one QuotaReply per window.
local now = now_us()
-- The running key holds a sorted set, so MGET reads it as absent.
local values = redis.call('MGET', unpack(KEYS))

-- Expired leases, of processes that died, are still in there until a request needs their place.
local reply = {pack_peek(redis.call('ZCOUNT', KEYS[RUNNING], string.format('(%.0f', now), '+inf'))}
for i = 1, #KEYS - KEY_COUNT do
    local limit, span_us = read_window(i)
    local window, first, total = prune_expired(values[KEY_COUNT + i], now, span_us)
    local reset_us = newest_moment(window, first, now - span_us) + span_us - now
    reply[i + 1] = pack_quota(math.max(limit - total, 0), reset_us)
end
return table.concat(reply)
