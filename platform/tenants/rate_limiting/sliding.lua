-- A sliding window is one string of doubles: the total, then entries (moment, number), the oldest first.
-- An entry counts until `span` after its moment. The first 64 of a window are exact, one for each ask. Beyond them,
-- asks within the same 64th of the span share an entry, which has the moment of the latest: what it holds may count
-- up to span / 64 too long, never too short. So a window takes 129 entries at most, whatever its limit.
local CELLS = 64
local HEADER, ENTRY = 8, 16
-- A clock further back than this was set; one that is a little back is another server's, or was nudged.
local SET_BACK = 1000000
local pack, unpack_at = struct.pack, struct.unpack

-- Return the window as it counts now, and where in it the entries begin that still do, and their total.
local function count(state, now, span)
    if not state then return '', 1, 0 end
    local total, at, size = unpack_at('<d', state), HEADER + 1, #state
    if unpack_at('<d', state, size - ENTRY + 1) > now + SET_BACK then
        -- All that was noted is taken for new: that is too long again, never too short.
        return pack('<dd', now, total), 1, total
    end
    local horizon = now - span
    while at < size do
        local moment, number = unpack_at('<dd', state, at)
        if moment > horizon then break end
        total, at = total - number, at + ENTRY
    end
    return state, at, total
end

-- Return the moment of the newest entry.
local function newest(state, at, otherwise)
    if at > #state then return otherwise end
    return (unpack_at('<d', state, #state - ENTRY + 1))
end

-- Return the moment of the entry with whose end enough has ended, so that `over` is over no more.
local function moment_of_room(state, at, over, now)
    local moment, number = now, 0
    while over > 0 and at < #state do
        moment, number = unpack_at('<dd', state, at)
        over, at = over - number, at + ENTRY
    end
    return moment
end

local function store(key, state, span)
    -- A second longer than it counts, for clocks that were nudged.
    redis.call('SET', key, state, 'PX', span / 1000 + 1000)
end

-- Store the window with one more ask in it.
local function note(key, state, at, total, now, span, number)
    local last = #state
    if at < last then
        local moment, before = unpack_at('<dd', state, last - ENTRY + 1)
        now = math.max(now, moment)
        local cell = span / CELLS
        local is_full = last - at >= CELLS * ENTRY - 1
        if moment == now or is_full and math.floor(moment / cell) == math.floor(now / cell) then
            last, number = last - ENTRY, before + number
            total = total - before
        end
    end
    store(key, pack('<d', total + number) .. string.sub(state, at, last) .. pack('<dd', now, number), span)
end
