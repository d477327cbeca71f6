"""What runs at the server: only there can the size of an entry be known before it is sent.

An entry that is read becomes pending, of ours; it stays so until it is answered, whatever is killed meanwhile. An
answer, the acknowledgement and the removal of the entry are one step.
"""

from __future__ import annotations

TAKE = """\
local key, group, me = KEYS[1], ARGV[1], ARGV[2]
local limit, largest, room = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local but = {}
for i = 7, #ARGV do but[ARGV[i]] = true end
if ARGV[6] ~= '' then
  local from = '0-0'
  for _ = 1, 10 do
    from = redis.call('XAUTOCLAIM', key, group, me, ARGV[6], from, 'COUNT', 100, 'JUSTID')[1]
    if from == '0-0' then break end
  end
end
local found = {}
local function add(id, fields)
  local body = ''
  for i = 1, #fields, 2 do
    if fields[i] == 'body' then body = fields[i + 1] end
  end
  if #body == 0 or #body > largest then
    found[#found + 1] = {id, #body, false}
    return true
  end
  if #found > 0 and #body > room then return false end
  room = room - #body
  found[#found + 1] = {id, #body, body}
  return true
end
local from = '-'
while #found < limit do
  local pending = redis.call('XPENDING', key, group, from, '+', 100, me)
  if #pending == 0 then break end
  for _, one in ipairs(pending) do
    from = '(' .. one[1]
    if #found < limit and not but[one[1]] then
      local entry = redis.call('XRANGE', key, one[1], one[1])[1]
      if not entry then
        redis.call('XACK', key, group, one[1])
      elseif not add(entry[1], entry[2]) then
        return found
      end
    end
  end
end
while #found < limit do
  local new = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', 1, 'STREAMS', key, '>')
  if not new then break end
  local entry = new[1][2][1]
  if not add(entry[1], entry[2]) then break end
end
return found
"""
"""Key: the stream. Arguments: group, consumer, how many at most, octets of the largest, octets of all, the idle
milliseconds after which an entry of another consumer is ours, or nothing; and the ids that are not wanted. Answers
``id, octets, body`` for each."""

ANSWER = """\
for i = 2, #KEYS do
  local at = 3 + (i - 2) * 5
  redis.call('DEL', KEYS[i])
  redis.call('HSET', KEYS[i], 'state', ARGV[at + 1], 'mail', ARGV[at + 2], 'message_id', ARGV[at + 3],
    'reason', ARGV[at + 4])
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[at])
  redis.call('XDEL', KEYS[1], ARGV[at])
end
return 1
"""
"""Keys: the stream, and that of each answer. Arguments: group, how many milliseconds an answer is kept, and of each the
entry's id, ``state``, ``mail``, ``message_id``, ``reason``."""
