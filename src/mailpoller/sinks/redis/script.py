"""What runs at the server: entries and the ids by which a repeat is known, in one step.

A script's writes reach the append-only file as one transaction, so that a server that was killed knows all of a call
or nothing. Entry before id: should the second fail, a message is there twice, and never an id without its message.
Of a repeat the id's time begins anew. That is a write, so that the server syncs before it answers: what it tells to
hold may have been written by one that was killed before its sync.

A third key is the queue's mark: a random identity, and how many messages it was given. Where another one is expected
nothing is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from uuid import uuid4

from mailpoller.core.delivery import Delivery
from mailpoller.core.ports import Mark

SCRIPT = """\
local identity = redis.call('HGET', KEYS[2], 'identity')
local height = tonumber(redis.call('HGET', KEYS[2], 'height') or '0')
if ARGV[3] ~= '' and (identity ~= ARGV[3] or height < tonumber(ARGV[4])) then
  return {identity or '', height, false}
end
local answers = {}
local new = 0
for i = 3, #KEYS do
  local at = 6 + (i - 3) * 4
  local entry = redis.call('GET', KEYS[i])
  if entry then
    redis.call('EXPIRE', KEYS[i], ARGV[1])
    answers[i - 2] = {1, entry}
  else
    local words = {'XADD', KEYS[1]}
    if ARGV[2] ~= '' then
      for _, word in ipairs({'MAXLEN', '~', ARGV[2]}) do table.insert(words, word) end
    end
    for _, word in ipairs({'*', 'deliveryid', ARGV[at], 'event', ARGV[at + 1]}) do table.insert(words, word) end
    if ARGV[at + 2] == '1' then
      table.insert(words, 'octets')
      table.insert(words, ARGV[at + 3])
    end
    entry = redis.call(unpack(words))
    redis.call('SET', KEYS[i], entry, 'EX', ARGV[1])
    answers[i - 2] = {0, entry}
    new = new + 1
  end
end
if #KEYS > 2 then
  if not identity then
    identity = ARGV[5]
    redis.call('HSET', KEYS[2], 'identity', identity)
  end
  height = redis.call('HINCRBY', KEYS[2], 'height', new)
end
return {identity or '', height, answers}
"""

SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""How the server knows the script (EVALSHA)."""


class Keys:
    """The keys of one queue, all in the hash slot of its stream."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._ids = stream if re.search(r"\{[^}]+\}", stream) else f"{{{stream}}}"

    def of(self, delivery_id: str) -> str:
        """Where the id is remembered; the key's value is the number of its entry."""
        return f"{self._ids}:id:{delivery_id}"

    @property
    def mark(self) -> str:
        """Where the queue's mark is: a hash of ``identity`` and ``height``."""
        return f"{self._ids}:mark"

    def call(
        self, batch: Iterable[Delivery], remember: int, maxlen: int | None, expected: Mark | None
    ) -> tuple[list[str], list[bytes | str | int]]:
        """The script's keys and arguments for these deliveries, whose ids are kept for ``remember`` seconds."""
        keys = [self.stream, self.mark]
        words: list[bytes | str | int] = [remember, "" if maxlen is None else maxlen]
        words += ["", 0] if expected is None else [expected.identity, expected.height]
        words.append(uuid4().hex)
        for one in batch:
            keys.append(self.of(one.delivery_id))
            octets = bytes(one.raw.octets.view()) if one.octets_wanted else b""
            words += [one.delivery_id, one.event.structured(), int(one.octets_wanted), octets]
        return keys, words
