-- A sliding window is one string of doubles: the total, then entries (moment, amount), the oldest first.
-- An entry counts until `span` after its moment. The first 64 entries of a window are exact, one per request. Beyond
-- them, requests within the same 64th of the span share an entry, which has the moment of the latest: its amount may
-- count up to span / 64 too long, never too short. So a window holds at most 129 entries, whatever its limit.
local BUCKETS = 64
local HEADER, ENTRY = 8, 16
-- If the newest entry is further ahead of the clock than this, the clock was set back. A smaller difference comes from
-- another server's clock, or from an adjustment.
local CLOCK_STEP_BACK = 1000000

-- Return the window as it counts now, the position in it of the first entry that still counts, and their total.
local function prune_expired(window, now, span)
    if not window then return '', 1, 0 end
    local total, first, size = unpack_at('<d', window), HEADER + 1, #window
    if unpack_at('<d', window, size - ENTRY + 1) > now + CLOCK_STEP_BACK then
        -- Everything recorded is taken for new: again too long, never too short.
        return pack('<dd', now, total), 1, total
    end
    local horizon = now - span
    while first < size do
        local moment, amount = unpack_at('<dd', window, first)
        if moment > horizon then break end
        total, first = total - amount, first + ENTRY
    end
    return window, first, total
end

-- Return the moment of the newest entry.
local function newest_moment(window, first, otherwise)
    if first > #window then return otherwise end
    return (unpack_at('<d', window, #window - ENTRY + 1))
end

-- Return the moment of the entry whose expiry brings the total down by `excess`.
local function moment_with_room(window, first, excess, now)
    local moment, amount = now, 0
    while excess > 0 and first < #window do
        moment, amount = unpack_at('<dd', window, first)
        excess, first = excess - amount, first + ENTRY
    end
    return moment
end

local function store(key, window, span)
    -- A second longer than it counts, for clocks that were adjusted.
    redis.call('SET', key, window, 'PX', span / 1000 + 1000)
end

-- Store the window with one more request in it.
local function record(key, window, first, total, now, span, amount)
    local last = #window
    if first < last then
        local moment, before = unpack_at('<dd', window, last - ENTRY + 1)
        now = math.max(now, moment)
        local bucket = span / BUCKETS
        local is_full = last - first >= BUCKETS * ENTRY - 1
        if moment == now or is_full and math.floor(moment / bucket) == math.floor(now / bucket) then
            last, amount = last - ENTRY, before + amount
            total = total - before
        end
    end
    store(key, pack('<d', total + amount) .. string.sub(window, first, last) .. pack('<dd', now, amount), span)
end
