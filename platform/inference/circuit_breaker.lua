-- The circuit breakers of all provider keys, shared by all processes. A key without failures has no entry.
--
-- KEYS: the hash of entries, by id.
-- ARGV: the fields of a struct of circuit_breaker.py, then what the operation takes in any number.
--
--   refresh  RefreshArguments, the ids of the probes, then pairs of id and number of successes  → all entries
--   failure  FailureArguments                                                                   → the entry
--   probe    ProbeArguments, then ids                                       → 1 if it was granted, then the entries
--   success  BreakerArguments, then ids; closes those that this process probes                  → the entries
--   release  BreakerArguments, then ids; ends this process's probes without a result            → the entries
--
-- An entry is JSON (`BreakerEntry` in breaker_state.py): [failures, successes] by second; once it is open, when its
-- cooldown ends and which process probes it until when.
local entries, operation, process = KEYS[1], ARGV[OPERATION], ARGV[PROCESS]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- An open entry that no call has probed for this long after its cooldown is deleted.
local STALE = 600000
local DAY = 86400000

local function get(id)
    local text = redis.call('HGET', entries, id)
    return text and cjson.decode(text)
end

local function put(id, entry)
    redis.call('HSET', entries, id, cjson.encode(entry))
    redis.call('PEXPIRE', entries, DAY)
end

-- Adds to the current second, drops seconds before the window, and returns the sums over the window.
local function count_results(entry, failures, successes, window)
    local second = tostring(time[1])
    local counts = entry.counts[second] or {0, 0}
    entry.counts[second] = {counts[1] + failures, counts[2] + successes}
    local sum = {0, 0}
    for at, counted in pairs(entry.counts) do
        if at * 1000 < now - window then
            entry.counts[at] = nil
        else
            sum = {sum[1] + counted[1], sum[2] + counted[2]}
        end
    end
    return sum[1], sum[2]
end

local function is_probed(entry) return entry.prober ~= '' and entry.probe_until > now end

local function open(entry, cooldown, max_cooldown, retry_after)
    entry.trips = entry.trips + 1
    if retry_after < 0 then retry_after = math.min(cooldown * 2 ^ math.min(entry.trips - 1, 30), max_cooldown) end
    entry.cooldown_until = now + retry_after
    if entry.opened_at == 0 then entry.opened_at = now end
    entry.prober = ''
end

-- Now, then pairs of id and entry; an empty entry means that there is none.
local function reply(ids)
    local result = {now}
    for _, id in ipairs(ids) do
        result[#result + 1] = id
        result[#result + 1] = redis.call('HGET', entries, id) or ''
    end
    return result
end

if operation == 'refresh' then
    local window, last_probe = tonumber(ARGV[WINDOW_MS]), REFRESH_ARGUMENT_COUNT + tonumber(ARGV[PROBE_COUNT])
    local held, successes = {}, {}
    for i = REFRESH_ARGUMENT_COUNT + 1, last_probe do held[ARGV[i]] = true end
    for i = last_probe + 1, #ARGV, 2 do successes[ARGV[i]] = tonumber(ARGV[i + 1]) end
    local result, all = {now}, redis.call('HGETALL', entries)
    for i = 1, #all, 2 do
        local id, entry = all[i], cjson.decode(all[i + 1])
        local failures = count_results(entry, 0, successes[id] or 0, window)
        if entry.opened_at == 0 and failures == 0 or entry.opened_at > 0 and entry.cooldown_until + STALE < now then
            redis.call('HDEL', entries, id)
        else
            -- A killed process does not renew its probe, so another process can probe once the lease expires.
            if held[id] and entry.prober == process then entry.probe_until = now + entry.probe_lease_ms end
            if held[id] or successes[id] then put(id, entry) end
            result[#result + 1] = id
            result[#result + 1] = cjson.encode(entry)
        end
    end
    return result
end

if operation == 'failure' then
    local window, id = tonumber(ARGV[WINDOW_MS]), ARGV[ID]
    local successes, failure_threshold = tonumber(ARGV[SUCCESSES]), tonumber(ARGV[FAILURE_THRESHOLD])
    local cooldown, max_cooldown = tonumber(ARGV[COOLDOWN_MS]), tonumber(ARGV[MAX_COOLDOWN_MS])
    local retry_after = tonumber(ARGV[RETRY_AFTER_MS])
    local entry = get(id) or {
        provider = ARGV[PROVIDER], model = ARGV[MODEL], kind = '', code = '', counts = {}, opened_at = 0, cooldown_until = 0,
        trips = 0, prober = '', probe_until = 0, probe_lease_ms = 0,
    }
    local failed, succeeded = count_results(entry, 1, successes, window)
    if entry.opened_at == 0 then
        entry.kind, entry.code = ARGV[KIND], ARGV[CODE]
        if failed >= failure_threshold and failed >= succeeded then
            open(entry, cooldown, max_cooldown, retry_after)
        end
    elseif now < entry.cooldown_until then
        -- A call that began before the breaker opened.
        if retry_after >= 0 then entry.cooldown_until = math.max(entry.cooldown_until, now + retry_after) end
    elseif entry.prober == process or not is_probed(entry) then
        entry.kind, entry.code = ARGV[KIND], ARGV[CODE]
        open(entry, cooldown, max_cooldown, retry_after)
    end
    put(id, entry)
    return reply({id})
end

local ids = {unpack(ARGV, (operation == 'probe' and PROBE_ARGUMENT_COUNT or BREAKER_ARGUMENT_COUNT) + 1)}
if operation == 'probe' then
    local lease, half_open = tonumber(ARGV[LEASE_MS]), {}
    for _, id in ipairs(ids) do
        local entry = get(id)
        if entry and entry.opened_at > 0 then
            if now < entry.cooldown_until or is_probed(entry) then return {0, unpack(reply(ids))} end
            half_open[id] = entry
        end
    end
    for id, entry in pairs(half_open) do
        entry.prober, entry.probe_lease_ms, entry.probe_until = process, lease, now + lease
        put(id, entry)
    end
    return {1, unpack(reply(ids))}
end

for _, id in ipairs(ids) do
    local entry = get(id)
    if entry and entry.prober == process then
        if operation == 'success' then
            redis.call('HDEL', entries, id)
        else
            entry.prober = ''
            put(id, entry)
        end
    end
end
return reply(ids)
