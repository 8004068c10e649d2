-- The time in microseconds since 1970, by Redis's clock: the only one that all processes share.
local function now_us()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end
