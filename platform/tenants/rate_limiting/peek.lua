-- Tell how a site's windows stand, and how many of its requests run. Nothing is written.
--
-- KEYS: running, then the windows.
-- ARGV: doubles: for each window its limit, its span in us.
-- Returns doubles: how many run, then for each window what remains and when it is empty, in us from now.
local running, numbers = KEYS[1], ARGV[1]
local now = clock()
-- The running key holds a sorted set, so it reads as absent here.
local found = redis.call('MGET', unpack(KEYS))

-- Those whose processes died are still in there until somebody wants their place.
local answer = {pack('<d', redis.call('ZCOUNT', running, string.format('(%.0f', now), '+inf'))}
for i = 2, #KEYS do
    local limit, span = unpack_at('<dd', numbers, 16 * (i - 2) + 1)
    local state, at, total = count(found[i], now, span)
    answer[i] = pack('<dd', math.max(limit - total, 0), newest(state, at, now - span) + span - now)
end
return table.concat(answer)
