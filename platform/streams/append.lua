-- Appends entries to the logs of any number of streams in one round trip, and publishes them to subscribed readers.
-- KEYS: the log of each entry. The keys of its record and its channel are derived from it.
-- ARGV: three per entry: the packed entry ('' when only the record is written), the record ('' to leave it unchanged),
--       and four words: the entry's id, the oldest id to keep, the TTL of log and record in seconds, and '1' if both
--       must exist already.
-- Returns per entry 'ok', 'gone' (what was written before is lost, so nothing was added), or the text of an error.
local results = {}
for n, log in ipairs(KEYS) do
  local record = log .. ':about'
  local packed, packed_record = ARGV[n * 3 - 2], ARGV[n * 3 - 1]
  local id, oldest, seconds, must_exist = string.match(ARGV[n * 3], '(%S+) (%S+) (%S+) (%S+)')
  local result = 'ok'
  if must_exist == '1' and redis.call('EXISTS', log, record) < 2 then
    result = 'gone'
  else
    if packed_record ~= '' then
      redis.call('SET', record, packed_record, 'EX', seconds)
    else
      redis.call('EXPIRE', record, seconds)
    end
    if packed ~= '' then
      local added = redis.pcall('XADD', log, 'MINID', '=', oldest, id, 'd', packed)
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
