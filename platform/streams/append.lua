-- Appends entries to the logs of any number of streams in one round trip, and publishes them to subscribed readers.
-- KEYS: the log of each entry. The keys of its record and its channel are derived from it.
-- ARGV: the fields of `AppendArguments` (writer.py) for each entry.
-- Returns per entry 'ok', 'gone' (what was written before is lost, so nothing was added), or the text of an error.
local results = {}
for n, log in ipairs(KEYS) do
  local record = log .. ':about'
  local offset = FIELD_COUNT * (n - 1)
  local packed, packed_record, seconds = ARGV[offset + ENTRY], ARGV[offset + RECORD], ARGV[offset + TTL_SECONDS]
  local result = 'ok'
  if ARGV[offset + MUST_EXIST] == '1' and redis.call('EXISTS', log, record) < 2 then
    result = 'gone'
  else
    if packed_record ~= '' then
      redis.call('SET', record, packed_record, 'EX', seconds)
    else
      redis.call('EXPIRE', record, seconds)
    end
    if packed ~= '' then
      local added = redis.pcall('XADD', log, 'MINID', '=', ARGV[offset + OLDEST_ID], ARGV[offset + ENTRY_ID], 'd', packed)
      if type(added) == 'table' and added.err then
        -- The entry may exist already: the reply to an earlier attempt may have been lost.
        if not string.find(added.err, 'equal or smaller', 1, true) then
          result = added.err
        end
      else
        redis.call('EXPIRE', log, seconds)
        redis.call('PUBLISH', log .. ':tail', packed)
      end
    end
  end
  results[n] = result
end
return results
