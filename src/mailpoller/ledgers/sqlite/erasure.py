"""A person's traces: what the ledger keeps beside the bare ids, by which repeats are recognised."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from mailpoller.ledgers.sqlite import acknowledgements, clues, stories
from mailpoller.ledgers.sqlite.values import Key, by_folder, document


def keys_of(connection: Connection, mids: Sequence[str]) -> list[Key]:
    """The rows of these messages, of those that the ledger knows."""
    return [key for mid in mids if (key := stories.find(connection, mid)) is not None]


def erase(connection: Connection, keys: Sequence[Key]) -> int:
    """Forget who sent these settled messages, their Message-IDs and conversations: how many there were. Ids, sums of
    octets and outcomes stay."""
    clues.take(connection, keys)
    erased = 0
    for number, uids in by_folder(keys).items():
        erased += connection.execute(
            "UPDATE message SET sender = NULL, message_id = NULL, conversation = NULL, clues = NULL WHERE folder = ?1 "
            "AND uid IN (SELECT value FROM json_each(?2)) AND state = 'settled'",
            (number, document(uids)),
        ).rowcount
    clues.put(connection, keys)
    return erased


def erase_outbox(connection: Connection, address: str, *, count_only: bool) -> tuple[int, int]:
    """Forget an address in mail that was handed in: how many mails there were, and how many of these were left alone,
    since they are to be sent yet, or whoever handed them in is to be told what became of them."""
    found = connection.execute(_HANDED_IN, (address.lower(),)).fetchall()
    done = document([number for number, open_ in found if not open_])
    if not count_only:
        connection.execute(
            "UPDATE outbox SET sender = iif(lower(sender) = ?2, '', sender), message_id = '', mid = '' WHERE number IN "
            "(SELECT value FROM json_each(?1))",
            (done, address.lower()),
        )
        connection.execute(
            "UPDATE outbox_recipient SET address = '', words = '' WHERE mail IN (SELECT value FROM json_each(?1)) AND "
            "lower(address) = ?2",
            (done, address.lower()),
        )
    waiting = sum(open_ for _, open_ in found)
    return len(found) - waiting, waiting


_HANDED_IN = """
SELECT number, due_at IS NOT NULL OR EXISTS (SELECT 1 FROM outbox_event WHERE mail = outbox.number) FROM outbox
WHERE lower(sender) = ?1 OR number IN (SELECT mail FROM outbox_recipient WHERE lower(address) = ?1)
"""


def erase_notes(connection: Connection, mids: Sequence[str], address: str) -> int:
    """Forget faults about these messages, and faults and changes in whose words the address stands: how many."""
    erased = connection.execute(
        "DELETE FROM fault WHERE mid IN (SELECT value FROM json_each(?1)) OR (?2 <> '' AND instr(lower(detail), ?2))",
        (document(list(mids)), address.lower()),
    ).rowcount
    erased += acknowledgements.erase(connection, mids, address)
    return (
        erased
        + connection.execute(
            "DELETE FROM change WHERE ?1 <> '' AND instr(lower(detail), ?1)", (address.lower(),)
        ).rowcount
    )
