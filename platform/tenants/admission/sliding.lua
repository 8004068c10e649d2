-- A sliding window is one string of doubles: the total, then entries (moment, count), the oldest first.
-- An entry counts until `span` after its moment. The first 64 of a window are exact, one for each ask. Beyond them,
-- asks within the same 64th of the span share an entry, which has the moment of the latest: what it holds may count
-- up to span / 64 too long, never too short. So a window takes 129 entries at most, whatever its limit.
local CELLS = 64
local HEADER, ENTRY = 8, 16
-- A clock further back than this was set; one that is a little back is another server's, or was nudged.
local SET_BACK = 1000000

-- Return what counts now: the total, and the entries as a string.
local function count(state, now, span)
    if not state then return 0, '' end
    local total, size, at = struct.unpack('<d', state), #state, HEADER + 1
    if struct.unpack('<d', state, size - ENTRY + 1) > now + SET_BACK then
        -- All that was noted is taken for new: that is too long again, never too short.
        return total, struct.pack('<dd', now, total)
    end
    local horizon = now - span
    while at < size do
        local moment, number = struct.unpack('<dd', state, at)
        if moment > horizon then break end
        total, at = total - number, at + ENTRY
    end
    return total, string.sub(state, at)
end

-- Return the moment of the newest entry.
local function newest(entries, otherwise)
    if #entries == 0 then return otherwise end
    return (struct.unpack('<d', entries, #entries - ENTRY + 1))
end

-- Return the moment of the entry with whose end enough has ended, so that `over` is over no more.
local function moment_of_room(entries, over, now)
    local at, moment, number = 1, now, 0
    while over > 0 and at < #entries do
        moment, number = struct.unpack('<dd', entries, at)
        over, at = over - number, at + ENTRY
    end
    return moment
end

-- Return the entries with one more ask in them.
local function note(entries, now, span, number)
    local size = #entries
    if size > 0 then
        local moment, before = struct.unpack('<dd', entries, size - ENTRY + 1)
        now = math.max(now, moment)
        local cell = span / CELLS
        local is_same = size >= CELLS * ENTRY and math.floor(moment / cell) == math.floor(now / cell)
        if is_same or moment == now then
            return string.sub(entries, 1, size - ENTRY) .. struct.pack('<dd', now, before + number)
        end
    end
    return entries .. struct.pack('<dd', now, number)
end

local function store(key, total, entries, span)
    -- A second longer than it counts, for clocks that were nudged.
    redis.call('SET', key, struct.pack('<d', total) .. entries, 'PX', span / 1000 + 1000)
end

-- Return how much of `number` could be given back of what was noted at a moment, and the entries without it.
local function give_back(entries, admitted, number)
    local low, high = 0, #entries / ENTRY
    while low < high do
        local middle = math.floor((low + high) / 2)
        if struct.unpack('<d', entries, middle * ENTRY + 1) < admitted then low = middle + 1 else high = middle end
    end
    local at = low * ENTRY + 1
    if at > #entries then return 0, entries end
    local moment, noted = struct.unpack('<dd', entries, at)
    number = math.min(number, noted)
    local changed = struct.pack('<dd', moment, noted - number)
    return number, string.sub(entries, 1, at - 1) .. changed .. string.sub(entries, at + ENTRY)
end
