-- The state of every key of a provider that is in trouble, or was lately. Who is not in here is well.
--
-- KEYS: the hash of entries, by id.
-- ARGV: operation, process, then what belongs to the operation.
--
--   look     window ms, number of probes, their ids, then id and number of answers     → all entries
--   failed   window ms, id, provider, model, kind, code, answers, failures that open it (0: this one does),
--            rest ms, longest rest ms, asked rest ms (-1: none asked for)                → the entry
--   probe    lease ms, ids                                                              → 1 if it was granted, then entries
--   answered ids                                                                        → entries
--   release  ids                                                                        → entries
--
-- An entry is JSON: counts by second, and once it is open when its rest ends, and who holds its probe until when.
local entries, operation, process = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local DAY, FORGET = 86400000, 600000

local function get(id)
    local found = redis.call('HGET', entries, id)
    return found and cjson.decode(found)
end

local function put(id, entry)
    redis.call('HSET', entries, id, cjson.encode(entry))
    redis.call('PEXPIRE', entries, DAY)
end

local function note(entry, failures, answers, window)
    local second = tostring(time[1])
    local counts = entry.counts[second] or {0, 0}
    entry.counts[second] = {counts[1] + failures, counts[2] + answers}
    local sum = {0, 0}
    for at, each in pairs(entry.counts) do
        if at * 1000 < now - window then
            entry.counts[at] = nil
        else
            sum = {sum[1] + each[1], sum[2] + each[2]}
        end
    end
    return sum[1], sum[2]
end

local function is_probed(entry) return entry.prober ~= '' and entry.probe_until > now end

local function open(entry, rest, longest, asked)
    entry.times = entry.times + 1
    if asked < 0 then asked = math.min(rest * 2 ^ math.min(entry.times - 1, 30), longest) end
    entry.rests_until = now + asked
    if entry.opened_at == 0 then entry.opened_at = now end
    entry.prober = ''
end

local function tell(ids)
    local told = {now}
    for _, id in ipairs(ids) do
        told[#told + 1] = id
        told[#told + 1] = redis.call('HGET', entries, id) or ''
    end
    return told
end

if operation == 'look' then
    local window, probes = tonumber(ARGV[3]), tonumber(ARGV[4])
    local held, answers = {}, {}
    for i = 5, 4 + probes do held[ARGV[i]] = true end
    for i = 5 + probes, #ARGV, 2 do answers[ARGV[i]] = tonumber(ARGV[i + 1]) end
    local told, all = {now}, redis.call('HGETALL', entries)
    for i = 1, #all, 2 do
        local id, entry = all[i], cjson.decode(all[i + 1])
        local failures = note(entry, 0, answers[id] or 0, window)
        if entry.opened_at == 0 and failures == 0 or entry.opened_at > 0 and entry.rests_until + FORGET < now then
            redis.call('HDEL', entries, id)
        else
            -- A process that was killed with a probe under way renews nothing, and another may try.
            if held[id] and entry.prober == process then entry.probe_until = now + entry.lease end
            if held[id] or answers[id] then put(id, entry) end
            told[#told + 1] = id
            told[#told + 1] = cjson.encode(entry)
        end
    end
    return told
end

if operation == 'failed' then
    local window, id = tonumber(ARGV[3]), ARGV[4]
    local answers, enough = tonumber(ARGV[9]), tonumber(ARGV[10])
    local rest, longest, asked = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
    local entry = get(id) or {
        provider = ARGV[5], model = ARGV[6], kind = '', code = '', counts = {}, opened_at = 0, rests_until = 0,
        times = 0, prober = '', probe_until = 0, lease = 0,
    }
    local failed, answered = note(entry, 1, answers, window)
    if entry.opened_at == 0 then
        entry.kind, entry.code = ARGV[7], ARGV[8]
        if failed >= enough and failed >= answered then open(entry, rest, longest, asked) end
    elseif now < entry.rests_until then
        -- A call that began before.
        if asked >= 0 then entry.rests_until = math.max(entry.rests_until, now + asked) end
    elseif entry.prober == process or not is_probed(entry) then
        entry.kind, entry.code = ARGV[7], ARGV[8]
        open(entry, rest, longest, asked)
    end
    put(id, entry)
    return tell({id})
end

local ids = {unpack(ARGV, operation == 'probe' and 4 or 3)}
if operation == 'probe' then
    local lease, resting = tonumber(ARGV[3]), {}
    for _, id in ipairs(ids) do
        local entry = get(id)
        if entry and entry.opened_at > 0 then
            if now < entry.rests_until or is_probed(entry) then return {0, unpack(tell(ids))} end
            resting[id] = entry
        end
    end
    for id, entry in pairs(resting) do
        entry.prober, entry.lease, entry.probe_until = process, lease, now + lease
        put(id, entry)
    end
    return {1, unpack(tell(ids))}
end

for _, id in ipairs(ids) do
    local entry = get(id)
    if entry and entry.prober == process then
        if operation == 'answered' then
            redis.call('HDEL', entries, id)
        else
            entry.prober = ''
            put(id, entry)
        end
    end
end
return tell(ids)
