"""The ledger's tables. Documented for operators in docs/ledger.md; a change is a new script at the end."""

from __future__ import annotations

from mailpoller.ledgers.sqlite.clues import shelve_all
from mailpoller.storage.sqlite import Schema

_VERSION_1 = """
CREATE TABLE folder (
    id          INTEGER PRIMARY KEY,
    mailbox     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    epoch       TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    user        TEXT    NOT NULL,
    turn        INTEGER NOT NULL,
    opened_at   INTEGER NOT NULL,
    baseline_at INTEGER NOT NULL,
    position    TEXT,
    advanced_at INTEGER,
    complete    INTEGER NOT NULL DEFAULT 0,
    held        TEXT,
    accepted    TEXT,
    UNIQUE (mailbox, name, epoch)
) STRICT;

CREATE TABLE message (
    folder             INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE,
    uid                TEXT    NOT NULL,
    state              TEXT    NOT NULL,
    due_at             INTEGER,
    mid                BLOB    NOT NULL,
    listed             INTEGER,
    claimed_at         INTEGER NOT NULL,
    suspect            INTEGER NOT NULL DEFAULT 0,
    at_risk            INTEGER NOT NULL DEFAULT 0,
    strikes            INTEGER NOT NULL DEFAULT 0,
    attempts           INTEGER NOT NULL DEFAULT 0,
    generation         INTEGER NOT NULL DEFAULT 0,
    waits_for          TEXT,
    route              TEXT,
    receipts           TEXT,
    reason             TEXT    NOT NULL DEFAULT '',
    outcome            TEXT,
    settled_at         INTEGER,
    disposition        TEXT,
    disposition_state  TEXT,
    disposition_reason TEXT,
    disposed_at        INTEGER,
    size               INTEGER,
    fingerprint        BLOB,
    mark               INTEGER,
    message_id         TEXT,
    sender             TEXT,
    repeat_of          TEXT,
    rules              TEXT,
    PRIMARY KEY (folder, uid)
) STRICT, WITHOUT ROWID;

CREATE INDEX message_due ON message (state, folder, due_at, waits_for) WHERE due_at IS NOT NULL;

CREATE INDEX message_mark ON message (mark) WHERE mark IS NOT NULL;

CREATE TABLE alarm (
    key       TEXT    NOT NULL PRIMARY KEY,
    source    TEXT    NOT NULL,
    summary   TEXT    NOT NULL,
    raised_at INTEGER NOT NULL,
    notified  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE fault (
    id      INTEGER PRIMARY KEY,
    subject TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    event   TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    mid     TEXT    NOT NULL
) STRICT;

CREATE INDEX fault_subject ON fault (subject, id);
"""

_VERSION_2 = """
ALTER TABLE message ADD COLUMN former TEXT;
"""

_VERSION_3 = """
ALTER TABLE message ADD COLUMN received INTEGER;
ALTER TABLE message ADD COLUMN identity BLOB;
ALTER TABLE message ADD COLUMN absent_at INTEGER;
ALTER TABLE message ADD COLUMN doubts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN doubted_at INTEGER;
ALTER TABLE message ADD COLUMN blame INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN bearer INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN plain_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN waiting_since INTEGER;
ALTER TABLE message ADD COLUMN clues INTEGER;

ALTER TABLE folder ADD COLUMN anew INTEGER NOT NULL DEFAULT 0;
ALTER TABLE folder ADD COLUMN predecessor INTEGER;
ALTER TABLE folder ADD COLUMN strange_at INTEGER;
ALTER TABLE folder ADD COLUMN pruned_at INTEGER;
ALTER TABLE folder ADD COLUMN absence_accepted_at INTEGER;
ALTER TABLE folder ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;

-- What a first listing showed, until all of it is worked on. Not in the row of its folder, which every settled
-- message changes.
CREATE TABLE plan (
    folder INTEGER NOT NULL PRIMARY KEY REFERENCES folder (id) ON DELETE CASCADE,
    listed TEXT    NOT NULL
) STRICT;

CREATE TABLE mailbox (
    name      TEXT    NOT NULL PRIMARY KEY,
    polled_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

UPDATE message SET plain_id = 1 WHERE state <> 'settled';

-- What `trace` finds settled messages by: see clues.py. `name`: eight characters of a sum, then the uid.
CREATE TABLE clue (
    batch  INTEGER NOT NULL,
    name   TEXT    NOT NULL,
    folder INTEGER NOT NULL,
    PRIMARY KEY (batch, name, folder)
) STRICT, WITHOUT ROWID;

-- Messages of before there were clues: whose uid follows this one, up to the next, has them in this batch.
CREATE TABLE clue_range (
    folder INTEGER NOT NULL,
    uid    TEXT    NOT NULL,
    batch  INTEGER NOT NULL,
    PRIMARY KEY (folder, uid)
) STRICT, WITHOUT ROWID;

-- Messages of batches that are not complete, or not sorted yet: lists of uids.
CREATE TABLE clue_unsorted (
    id     INTEGER PRIMARY KEY,
    batch  INTEGER NOT NULL,
    folder INTEGER NOT NULL,
    uids   TEXT    NOT NULL
) STRICT;

-- How many messages have been given clues.
CREATE TABLE shelf (messages INTEGER NOT NULL) STRICT;

INSERT INTO shelf (messages) VALUES (0);

CREATE INDEX message_lost ON message (folder, settled_at)
    WHERE outcome = 'gone' AND (receipts IS NULL OR reason = '') OR outcome = 'doubtful';

CREATE INDEX message_blamed ON message (folder) WHERE blame > 0;

CREATE INDEX message_waiting ON message (waiting_since) WHERE waiting_since IS NOT NULL;

-- `status` has no time to count millions.
CREATE TRIGGER message_settled AFTER UPDATE OF state ON message
WHEN new.state = 'settled' AND old.state <> 'settled' BEGIN
    UPDATE folder SET settled = settled + 1 WHERE id = new.folder;
END;

CREATE TRIGGER message_reopened AFTER UPDATE OF state ON message
WHEN old.state = 'settled' AND new.state <> 'settled' BEGIN
    UPDATE folder SET settled = settled - 1 WHERE id = new.folder;
END;

CREATE TRIGGER message_moved AFTER UPDATE OF folder ON message
WHEN new.state = 'settled' AND new.folder <> old.folder BEGIN
    UPDATE folder SET settled = settled - 1 WHERE id = old.folder;
    UPDATE folder SET settled = settled + 1 WHERE id = new.folder;
END;

CREATE TRIGGER message_forgotten AFTER DELETE ON message WHEN old.state = 'settled' BEGIN
    UPDATE folder SET settled = settled - 1 WHERE id = old.folder;
END;
"""


# Which queue each name stood for, so that one that vanished is not begun anew in silence.
_QUEUES = """
CREATE TABLE queue (
    name     TEXT    NOT NULL PRIMARY KEY,
    identity TEXT    NOT NULL,
    height   INTEGER NOT NULL,
    place    TEXT    NOT NULL,
    receipts INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

# Each counts one thing: how often it could not be processed, and how often a queue refused it for its own sake.
_COUNTERS = """
ALTER TABLE message ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
"""

# The conversation that a queue was told, and to which whatever answers the message belongs too.
_CONVERSATIONS = """
ALTER TABLE message ADD COLUMN conversation TEXT;
"""

# What operators did and asked for: see changes.py.
_CHANGES = """
CREATE TABLE change (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    event  TEXT    NOT NULL,
    who    TEXT    NOT NULL,
    detail TEXT    NOT NULL
) STRICT;

CREATE TABLE pause (
    what TEXT    NOT NULL PRIMARY KEY,
    at   INTEGER NOT NULL,
    who  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE configuration (
    block TEXT NOT NULL PRIMARY KEY,
    sums  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

# Mail that was accepted to be sent; its octets are files. `due_at`: NULL once nobody is to get it any more.
_OUTBOX = """
CREATE TABLE outbox (
    number      INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    intake      TEXT    NOT NULL,
    key         TEXT,
    content     BLOB    NOT NULL,
    identity    TEXT    NOT NULL,
    mailbox     TEXT    NOT NULL,
    mid         TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    sender      TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    accepted_at INTEGER NOT NULL,
    gives_up_at INTEGER NOT NULL,
    due_at      INTEGER,
    done_at     INTEGER,
    attempts    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX outbox_key ON outbox (intake, key) WHERE key IS NOT NULL;
CREATE INDEX outbox_due ON outbox (identity, due_at, size) WHERE due_at IS NOT NULL;
CREATE INDEX outbox_digest ON outbox (digest);
CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL;

CREATE TABLE outbox_recipient (
    mail    INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    address TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    words   TEXT    NOT NULL,
    at      INTEGER,
    PRIMARY KEY (mail, number)
) STRICT, WITHOUT ROWID;
"""

# What was settled lately. Each commit adds to its end, so it costs the drain next to nothing.
_LATELY = """
CREATE INDEX message_settled_at ON message (settled_at) WHERE settled_at IS NOT NULL;
"""

# What senders are owed, and who had it when. `decided_at`: NULL while it is owed. Told beside the outcome of a message.
_ACKNOWLEDGEMENTS = """
CREATE TABLE acknowledgement (
    mid        TEXT    NOT NULL PRIMARY KEY,
    mailbox    TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    received   INTEGER NOT NULL,
    words      TEXT    NOT NULL,
    owed_at    INTEGER NOT NULL,
    decided_at INTEGER,
    sent       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX acknowledgement_owed ON acknowledgement (owed_at) WHERE decided_at IS NULL;
CREATE INDEX acknowledgement_had ON acknowledgement (mailbox, address, decided_at) WHERE sent;
CREATE INDEX acknowledgement_decided ON acknowledgement (decided_at) WHERE decided_at IS NOT NULL;

CREATE TABLE acknowledging (
    mailbox TEXT    NOT NULL PRIMARY KEY,
    since   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

# What intakes are still to be told of their mail.
_OUTBOX_EVENTS = """
CREATE TABLE outbox_event (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    mail    INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    said    TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_event_mail ON outbox_event (mail);
CREATE INDEX outbox_message_id ON outbox (message_id);
"""

# The mailbox's address that a message came to, where its answers depend on that.
_DELIVERED_TO = """
ALTER TABLE message ADD COLUMN delivered_to TEXT;
"""

# By what the outbox knows that it is no copy: one row.
_OUTBOX_MARK = """
CREATE TABLE outbox_mark (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT    NOT NULL,
    height   INTEGER NOT NULL,
    machine  TEXT    NOT NULL,
    place    TEXT    NOT NULL
) STRICT;
"""

# Where a mail lies at a service that keeps it before it sends it.
_OUTBOX_DRAFT = """
ALTER TABLE outbox ADD COLUMN draft TEXT;
"""

# How late it was at least, as far as a service believed its clock: one row. And what was settled in another way than
# most mail, so that each hour's outcomes are counted without a look at the messages; to the drain it costs nothing.
_TIME = """
CREATE TABLE belief (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    at      INTEGER NOT NULL,
    doubted INTEGER NOT NULL
) STRICT;

CREATE INDEX message_unusual ON message (settled_at, outcome)
    WHERE settled_at IS NOT NULL AND outcome IS NOT 'delivered';
"""

# Until when a folder was polled in shadow, where nothing of ours was to be done to its mail; the end of time: it is.
_SHADOW = """
ALTER TABLE folder ADD COLUMN shadow_until INTEGER;
"""

# What intakes refused, and are still to be told.
_REFUSALS = """
CREATE TABLE outbox_refusal (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id     TEXT    NOT NULL UNIQUE,
    intake TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    entry  INTEGER,
    mid    TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    at     INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_refusal_intake ON outbox_refusal (intake);
"""

SCHEMA = Schema(
    name="ledger",
    application_id=0x6D706C67,
    migrations=(
        _VERSION_1,
        _VERSION_2,
        _VERSION_3,
        _QUEUES,
        _COUNTERS,
        _CONVERSATIONS,
        _CHANGES,
        _OUTBOX,
        _LATELY,
        _ACKNOWLEDGEMENTS,
        _OUTBOX_EVENTS,
        _DELIVERED_TO,
        _OUTBOX_MARK,
        _OUTBOX_DRAFT,
        _TIME,
        _SHADOW,
        _REFUSALS,
    ),
    works={3: shelve_all},
)
"""``message.state`` is one of these words; what is due when is in ``due_at``, which is NULL once nothing remains to
be done.

- ``claimed``: in a process's hands since ``due_at``
- ``suspect``: a process died with it, and it had no verdict since; due at ``due_at``, alone
- ``deferred``: to be tried again at ``due_at``
- ``settled``: it has an ``outcome``; ``due_at`` is when its disposition is to be tried (again)

``received`` is in seconds since 1970, as servers count it; every other instant in microseconds.
"""
