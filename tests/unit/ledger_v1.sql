-- A ledger of version 1 as it was written then. Never changed: later versions must read it.
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

PRAGMA application_id = 1836084327;
PRAGMA user_version = 1;

INSERT INTO folder (id, mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at, position, advanced_at, complete)
VALUES (1, 'support', 'INBOX', 'imap:imap.example.com:support:1700000000', 'imap', 'imap.example.com', 'support', 1,
    1773480413589793, 1773480413589793, '42', 1773480413589793, 1);

INSERT INTO message (folder, uid, state, due_at, mid, listed, claimed_at, attempts, waits_for, route, receipts, reason)
VALUES (1, '1', 'deferred', 1773484013589793, x'00000000000050008000000000000001', 1000, 1773480413589793, 3, 'billing',
    '["support","billing"]', '{"support":"row 2"}', 'queue-down');

INSERT INTO message (folder, uid, state, due_at, mid, listed, claimed_at, suspect, at_risk, strikes)
VALUES (1, '2', 'claimed', 1773480413589793, x'00000000000050008000000000000002', 1000, 1773480413589793, 1, 1, 1);

INSERT INTO message (folder, uid, state, due_at, mid, listed, claimed_at, receipts, outcome, settled_at, disposition,
    disposition_state, disposed_at, size, fingerprint, mark, message_id, sender, rules)
VALUES (1, '3', 'settled', NULL, x'00000000000050008000000000000003', 1000, 1773480413589793, '{"support":"row 1"}', 'delivered', 1773480413589793,
    '{"seen":true}', 'applied', 1773480413589793, 1003, x'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff', -1,
    '<a@example.com>', 'erika@example.com', '["invoices"]');

INSERT INTO message (folder, uid, state, due_at, mid, listed, claimed_at, outcome, settled_at, disposition, disposition_state)
VALUES (1, '4', 'settled', 1773480413589793, x'00000000000050008000000000000004', 1000, 1773480413589793, 'quarantined', 1773480413589793,
    '{"seen":true,"move":"Processed"}', 'pending');

INSERT INTO alarm (key, source, summary, raised_at) VALUES ('down:support', 'imap.example.com', 'support is down', 1773480413589793);

INSERT INTO fault (subject, at, event, detail, mid) VALUES ('support', 1773480413589793, 'session.lost', 'connection reset', '');
