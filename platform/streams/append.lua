-- Adds entries to the logs of any number of streams in one trip, and tells them to who is reading.
-- KEYS: for each entry its log, record and channel.
-- ARGV: for each entry six: its id ('' when only the record is written), the packed entry, the record ('' when it
--       stands already), seconds to keep both, the oldest id to keep, and '1' if the log must be there already.
-- Returns for each entry 'ok', 'gone' (what was written before is lost, so nothing was added), or an error's text.
local answers = {}
for n = 1, #KEYS / 3 do
  local log, record, channel = KEYS[n * 3 - 2], KEYS[n * 3 - 1], KEYS[n * 3]
  local at = n * 6 - 5
  local id, packed, about, seconds, oldest = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local answer = 'ok'
  if ARGV[at + 5] == '1' and redis.call('EXISTS', log, record) < 2 then
    answer = 'gone'
  else
    if about ~= '' then
      redis.call('SET', record, about, 'EX', seconds)
    else
      redis.call('EXPIRE', record, seconds)
    end
    if id ~= '' then
      local added = redis.pcall('XADD', log, 'MINID', '=', oldest, id, 'd', packed)
      if type(added) == 'table' and added.err then
        -- It may stand there already: the answer of the trip before this one may have been lost.
        if not string.find(added.err, 'equal or smaller', 1, true) then
          answer = added.err
        end
      else
        redis.call('EXPIRE', log, seconds)
        redis.call('PUBLISH', channel, packed)
      end
    end
  end
  answers[n] = answer
end
return answers
