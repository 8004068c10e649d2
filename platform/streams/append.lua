-- Adds entries to the logs of any number of streams in one trip, and tells them to who is reading.
-- KEYS: the log of each entry. Its record and its channel are named after it.
-- ARGV: for each entry three: the packed entry ('' when only the record is written), the record ('' when it stands
--       already), and four words: the entry's id, the oldest id to keep, the seconds to keep log and record, and
--       '1' if both must be there already.
-- Returns for each entry 'ok', 'gone' (what was written before is lost, so nothing was added), or an error's text.
local answers = {}
for n, log in ipairs(KEYS) do
  local record = log .. ':about'
  local packed, about = ARGV[n * 3 - 2], ARGV[n * 3 - 1]
  local id, oldest, seconds, must_be_there = string.match(ARGV[n * 3], '(%S+) (%S+) (%S+) (%S+)')
  local answer = 'ok'
  if must_be_there == '1' and redis.call('EXISTS', log, record) < 2 then
    answer = 'gone'
  else
    if about ~= '' then
      redis.call('SET', record, about, 'EX', seconds)
    else
      redis.call('EXPIRE', record, seconds)
    end
    if packed ~= '' then
      local added = redis.pcall('XADD', log, 'MINID', '=', oldest, id, 'd', packed)
      if type(added) == 'table' and added.err then
        -- It may stand there already: the answer of the trip before this one may have been lost.
        if not string.find(added.err, 'equal or smaller', 1, true) then
          answer = added.err
        end
      else
        redis.call('EXPIRE', log, seconds)
        redis.call('PUBLISH', log .. ':tail', packed)
      end
    end
  end
  answers[n] = answer
end
return answers
