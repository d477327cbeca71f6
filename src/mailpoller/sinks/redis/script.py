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
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from mailpoller.core.delivery import Delivery
from mailpoller.core.ports import Mark

_SCRIPT = """\
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
    ENTER
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

_ENTER_STREAM = """\
local words = {'XADD', KEYS[1]}
    if ARGV[2] ~= '' then
      for _, word in ipairs({'MAXLEN', '~', ARGV[2]}) do table.insert(words, word) end
    end
    for _, word in ipairs({'*', 'deliveryid', ARGV[at], 'event', ARGV[at + 1]}) do table.insert(words, word) end
    if ARGV[at + 2] == '1' then
      table.insert(words, 'octets')
      table.insert(words, ARGV[at + 3])
    end
    entry = redis.call(unpack(words))"""

_ENTER_LIST = """\
redis.call('LPUSH', KEYS[1], ARGV[at + 1])
    if ARGV[2] ~= '' then redis.call('SADD', ARGV[2], ARGV[at + 3]) end
    entry = ARGV[at]"""


class Script:
    """One form of the script. ``sha``: how the server knows it (EVALSHA)."""

    def __init__(self, enter: str) -> None:
        self.text = _SCRIPT.replace("ENTER", enter)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


ENTRIES = Script(_ENTER_STREAM)
"""Adds to a stream. The second argument is its greatest length, or empty."""
JOBS = Script(_ENTER_LIST)
"""Adds to a list. The second argument is the key of the set that the list's name, each job's last argument, is put
into, or empty."""


class Keys:
    """The keys of one queue: its stream or list, and those in the hash slot of ``others``, its stream if it is not
    given."""

    def __init__(self, stream: str, others: str = "") -> None:
        self.stream = stream
        others = others or stream
        self._ids = others if re.search(r"\{[^}]+\}", others) else f"{{{others}}}"

    def of(self, delivery_id: str) -> str:
        """Where the id is remembered; the key's value is the number of its entry."""
        return f"{self._ids}:id:{delivery_id}"

    @property
    def mark(self) -> str:
        """Where the queue's mark is: a hash of ``identity`` and ``height``."""
        return f"{self._ids}:mark"

    def call(
        self,
        batch: Iterable[Delivery],
        remember: int,
        second: int | str,
        expected: Mark | None,
        shape: Callable[[Delivery], Sequence[bytes | str | int]],
    ) -> tuple[list[str], list[bytes | str | int]]:
        """The script's keys and arguments for these deliveries, whose ids are kept for ``remember`` seconds.
        ``second``: the script's second argument; ``shape``: the three of each delivery behind its id."""
        keys = [self.stream, self.mark]
        words: list[bytes | str | int] = [remember, second]
        words += ["", 0] if expected is None else [expected.identity, expected.height]
        words.append(uuid4().hex)
        for one in batch:
            keys.append(self.of(one.delivery_id))
            words += [one.delivery_id, *shape(one)]
        return keys, words


def entry_of(one: Delivery) -> tuple[bytes, int, bytes]:
    """What a stream's entry holds: the event, and the octets if they are wanted."""
    return one.event.structured(), int(one.octets_wanted), bytes(one.raw.octets.view()) if one.octets_wanted else b""
