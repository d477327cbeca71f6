"""The kinds of alarm that are the service's own: how each is told, and what an operator can do."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from mailpoller.core.ports import DoubtKind
from mailpoller.core.record import record

_AT_ONCE = timedelta(0)


class Kind(Enum):
    """A kind of trouble of the service's own. The order is that of a mail that tells of several; what sinks doubt
    comes behind :attr:`RECIPIENT_REFUSED`."""

    LEDGER_UNWRITABLE = "ledger-unwritable"
    QUEUE_VANISHED = "queue-vanished"
    QUEUE_FAILING = "queue-failing"
    OUTGOING_FAILING = "outgoing-failing"
    INTAKE_FAILING = "intake-failing"
    OUTBOX_HELD = "outbox-held"
    OUTBOX_COPIED = "outbox-copied"
    ACKNOWLEDGEMENTS_STOPPED = "acknowledgements-stopped"
    MAILBOX_DOWN = "mailbox-down"
    MAILBOX_OVERDUE = "mailbox-overdue"
    WATCHER_FAILING = "watcher-failing"
    FOLDER_FAILING = "folder-failing"
    CREDENTIALS_REFUSED = "credentials-refused"
    MAILBOX_LACKING = "mailbox-lacking"
    MAILBOX_HELD = "mailbox-held"
    DISPOSITION_IMPOSSIBLE = "disposition-impossible"
    NOTICE_REFUSED = "notice-refused"
    ENVIRONMENT = "environment"
    QUEUE_UNTAKEN = "queue-untaken"
    MAILBOX_BACKLOG = "mailbox-backlog"
    QUEUE_BACKLOG = "queue-backlog"
    OUTBOX_BACKLOG = "outbox-backlog"
    RECIPIENT_REFUSED = "recipient-refused"
    CREDENTIALS_EXPIRE = "credentials-expire"
    MAIL_STUCK = "mail-stuck"
    DISPOSITION_PENDING = "disposition-pending"
    LISTING_GAP = "listing-gap"
    MAIL_ABSENT = "mail-absent"
    NUMBERING_CHANGED = "numbering-changed"
    OCTETS_DOUBTFUL = "octets-doubtful"
    POISON_QUARANTINED = "poison-quarantined"
    FLOOD_QUARANTINED = "flood-quarantined"


@record
class Manner:
    """How a kind of trouble is told.

    The four sentences take ``{subject}``, ``{count}`` and ``{place}`` (`` on mail.example.com``, or nothing).
    ``patience``: how long it must last before it is worth a mail. ``silence``: an alarm of an earlier run that nobody
    raises again for so long after the start is taken to have ended. ``lasts`` is False for an event, which has no
    end.
    """

    one: str
    many: str
    one_over: str
    many_over: str
    advice: str
    patience: timedelta = _AT_ONCE
    silence: timedelta = timedelta(minutes=30)
    lasts: bool = True


MANNERS = {
    Kind.LEDGER_UNWRITABLE: Manner(
        "The ledger cannot be written",
        "{count} ledgers cannot be written",
        "The ledger can be written again",
        "{count} ledgers can be written again",
        "Nothing is fetched until it can; no mail is lost. Look at the disk (full, read-only?) and the log.",
        timedelta(seconds=30),
    ),
    Kind.QUEUE_VANISHED: Manner(
        "The queue {subject} is not the one that was delivered to",
        "{count} queues{place} are not those that were delivered to",
        "The queue {subject} is in its place",
        "{count} queues{place} are in their places",
        "Nothing is brought to it; its mail waits in the mailboxes. Put it back, or begin anew with what is there: "
        "mailpoller queue adopt QUEUE",
    ),
    Kind.QUEUE_FAILING: Manner(
        "The queue {subject} takes no mail",
        "{count} queues{place} take no mail",
        "The queue {subject} takes mail again",
        "{count} queues{place} take mail again",
        "Mail for it waits in the mailboxes; other mail goes on.",
        timedelta(minutes=2),
    ),
    Kind.OUTGOING_FAILING: Manner(
        "Replies cannot be sent by {subject}",
        "Replies cannot be sent by {count} outgoings{place}",
        "Replies are sent by {subject} again",
        "Replies are sent by {count} outgoings{place} again",
        "They wait in the outbox and are tried again by themselves. What waits: mailpoller outbox list",
        timedelta(minutes=5),
    ),
    Kind.INTAKE_FAILING: Manner(
        "The intake {subject} cannot be read",
        "{count} intakes{place} cannot be read",
        "The intake {subject} is read again",
        "{count} intakes{place} are read again",
        "What programs left there to be sent waits there. mailpoller check --live says what is wrong.",
        timedelta(minutes=5),
    ),
    Kind.OUTBOX_HELD: Manner(
        "Replies wait, for nothing is sent by {subject}",
        "Replies wait, for nothing is sent by {count} outgoings{place}",
        "Replies are sent by {subject} again",
        "Replies are sent by {count} outgoings{place} again",
        "The outgoing is disabled, gone, or of another environment. Mend that, or: mailpoller outbox list, cancel",
        timedelta(minutes=5),
    ),
    Kind.OUTBOX_COPIED: Manner(
        "The outbox was restored or copied: nothing of it is sent",
        "{count} outboxes were restored or copied: nothing of them is sent",
        "The outbox is sent again",
        "{count} outboxes are sent again",
        "What was sent already would go out again. Look at what waits: mailpoller outbox list, cancel. Then, if this "
        "is the installation that is to send: mailpoller outbox accept",
    ),
    Kind.ACKNOWLEDGEMENTS_STOPPED: Manner(
        "There were too many acknowledgements: none is sent",
        "There were too many acknowledgements of {count} kinds: none is sent",
        "Acknowledgements are sent again",
        "Acknowledgements of {count} kinds are sent again",
        "Is somebody's mail a loop, or a flood? Look at what came; outbox.max_acknowledgements_per_hour is the bound. "
        "Mail is delivered as ever.",
    ),
    Kind.MAILBOX_DOWN: Manner(
        "The mailbox {subject}{place} is down",
        "{count} mailboxes{place} are down",
        "The mailbox {subject}{place} is up again",
        "{count} mailboxes{place} are up again",
        "It is tried again by itself. Where it stands: mailpoller status",
        timedelta(minutes=5),
    ),
    Kind.MAILBOX_OVERDUE: Manner(
        "No poll of the mailbox {subject}{place} comes to its end",
        "No poll of {count} mailboxes{place} comes to its end",
        "The mailbox {subject}{place} is polled to the end again",
        "{count} mailboxes{place} are polled to the end again",
        "What it does at present, and since when: mailpoller status, mailpoller errors",
        timedelta(minutes=5),
        silence=timedelta(hours=26),
    ),
    Kind.WATCHER_FAILING: Manner(
        "The task of the mailbox {subject}{place} is built anew again and again",
        "The tasks of {count} mailboxes{place} are built anew again and again",
        "The task of the mailbox {subject}{place} runs on",
        "The tasks of {count} mailboxes{place} run on",
        "It got nowhere for its poll_budget, or it raised, which is a bug: the log says which.",
    ),
    Kind.FOLDER_FAILING: Manner(
        "The folder {subject}{place} cannot be polled",
        "{count} folders{place} cannot be polled",
        "The folder {subject}{place} is polled again",
        "{count} folders{place} are polled again",
        "The other folders of its mailbox are polled. Look at its name and its rights: mailpoller check --live "
        "--mailbox MAILBOX",
        timedelta(minutes=5),
    ),
    Kind.CREDENTIALS_REFUSED: Manner(
        "The login of {subject}{place} is refused",
        "The logins of {count} mailboxes{place} are refused",
        "The login of {subject}{place} is accepted again",
        "The logins of {count} mailboxes{place} are accepted again",
        "It is tried again, slowly. Look at the user name and the password or token; then: mailpoller poll MAILBOX",
    ),
    Kind.MAILBOX_LACKING: Manner(
        "The mailbox {subject}{place} lacks something that it needs here",
        "{count} mailboxes{place} lack something that they need here",
        "The mailbox {subject}{place} has what it needs again",
        "{count} mailboxes{place} have what they need again",
        "A secret, a file or an optional package is missing or of no use; the line below says which. It is looked for "
        "every minute: no restart is needed. Sooner: mailpoller poll MAILBOX",
    ),
    Kind.MAILBOX_HELD: Manner(
        "The mailbox {subject}{place} is held: an operator must decide",
        "{count} mailboxes{place} are held: an operator must decide",
        "The mailbox {subject}{place} is no longer held",
        "{count} mailboxes{place} are no longer held",
        "Nothing is fetched from it until then: mailpoller accept MAILBOX --baseline | --replay",
    ),
    Kind.DISPOSITION_IMPOSSIBLE: Manner(
        "The mailbox {subject}{place} refuses what is to be done to settled mail",
        "{count} mailboxes{place} refuse what is to be done to settled mail",
        "The mailbox {subject}{place} allows again what is to be done to settled mail",
        "{count} mailboxes{place} allow again what is to be done to settled mail",
        "The mail itself is safe in its queue. Look at rights, quota and the folder that the disposition names.",
        silence=timedelta(hours=26),
    ),
    Kind.NOTICE_REFUSED: Manner(
        "Nobody can be told of quarantined mail of {subject}{place}",
        "Nobody can be told of quarantined mail of {count} mailboxes{place}",
        "Quarantined mail of {subject}{place} is told of again",
        "Quarantined mail of {count} mailboxes{place} is told of again",
        "The mail is safe in the quarantine. Where its notice should go refused it for good: look at what was said, "
        "and at the mail: mailpoller quarantine list",
        silence=timedelta(hours=26),
    ),
    Kind.ENVIRONMENT: Manner(
        "The mailbox {subject} is not polled: it belongs to another environment",
        "{count} mailboxes{place} are not polled: they belong to another environment",
        "The mailbox {subject} is polled again",
        "{count} mailboxes{place} are polled again",
        "Set the mailbox's environment, or enabled: false if this is meant.",
    ),
    Kind.QUEUE_UNTAKEN: Manner(
        "Nobody takes from the queue {subject}",
        "Nobody takes from {count} queues{place}",
        "The queue {subject} is taken from again",
        "{count} queues{place} are taken from again",
        "Mail is still brought to it. Look whether its consumer runs: mailpoller queue list QUEUE",
    ),
    Kind.MAILBOX_BACKLOG: Manner(
        "Too much waits in the mailbox {subject}{place}, or too long",
        "Too much waits in {count} mailboxes{place}, or too long",
        "No more waits in the mailbox {subject}{place} than should",
        "No more waits in {count} mailboxes{place} than should",
        "mailpoller status says whether it is polled and what it waits for. The marks are those of watermarks.",
    ),
    Kind.QUEUE_BACKLOG: Manner(
        "Too much waits in the queue {subject}, or too long",
        "Too much waits in {count} queues{place}, or too long",
        "No more waits in the queue {subject} than should",
        "No more waits in {count} queues{place} than should",
        "Look whether its consumer keeps up: mailpoller queue list QUEUE. The marks are those of watermarks.",
    ),
    Kind.OUTBOX_BACKLOG: Manner(
        "Too much waits to be sent by {subject}, or too long",
        "Too much waits to be sent by {count} outgoings{place}, or too long",
        "No more waits to be sent by {subject} than should",
        "No more waits to be sent by {count} outgoings{place} than should",
        "mailpoller outbox list says what the relay answers. The marks are those of watermarks.",
    ),
    Kind.RECIPIENT_REFUSED: Manner(
        "A recipient of the queue {subject} is refused for good",
        "Recipients of {count} queues{place} are refused for good",
        "All recipients of the queue {subject} have its mail again",
        "All recipients of {count} queues{place} have their mail again",
        "The others have the mail, and it is not sent to this one again. Mend the address, or take it out: "
        "mailpoller check --live names it.",
        silence=timedelta(days=1),
    ),
    Kind.CREDENTIALS_EXPIRE: Manner(
        "A login will stop working: {subject}",
        "{count} logins will stop working",
        "A login no longer ends soon: {subject}",
        "{count} logins no longer end soon",
        "Renew it before that day, and put its new date into the configuration (auth: expires). A refresh token: "
        "mailpoller oauth login",
        silence=timedelta(hours=26),
    ),
    Kind.MAIL_STUCK: Manner(
        "A message waits in vain: {subject}{place}",
        "{count} messages{place} wait in vain",
        "A message waits no more: {subject}{place}",
        "{count} messages{place} wait no more",
        "It stays on the server and is tried again; other mail goes on. Can a mail program open it? What became of "
        "it: mailpoller trace MID",
        silence=timedelta(hours=26),
    ),
    Kind.DISPOSITION_PENDING: Manner(
        "A settled message stays as it was on the server: {subject}{place}",
        "{count} settled messages{place} stay as they were on the server",
        "What was to be done to a settled message is done: {subject}{place}",
        "What was to be done to {count} settled messages{place} is done",
        "The mail itself is safe in its queue. The server says neither yes nor no; it is asked again and again.",
        silence=timedelta(hours=26),
    ),
    Kind.LISTING_GAP: Manner(
        "The folder {subject}{place} holds messages that its listing does not show",
        "{count} folders{place} hold messages that their listings do not show",
        "The listing of the folder {subject}{place} shows all that it holds",
        "The listings of {count} folders{place} show all that they hold",
        "What is listed is carried. The rest is asked for daily; the server's own repair (reindex, rebuild) may "
        "bring it back.",
        silence=timedelta(hours=26),
    ),
    Kind.MAIL_ABSENT: Manner(
        "Mail that waits is not in the mailbox {subject}{place} any more",
        "Mail that waits is not in {count} mailboxes{place} any more",
        "The mail that waits is in the mailbox {subject}{place} again, or done with",
        "The mail that waits is in {count} mailboxes{place} again, or done with",
        "Is the store mounted, and is it the right one? It is looked for again and again. If somebody removed it: "
        "mailpoller accept MAILBOX --absence",
        timedelta(minutes=5),
        silence=timedelta(hours=26),
    ),
    Kind.NUMBERING_CHANGED: Manner(
        "The mailbox {subject}{place} gives known names to other messages",
        "{count} mailboxes{place} give known names to other messages",
        "",
        "",
        "The server was put back from a copy, or replaced. Known mail is recognised and not delivered again; look "
        "whether mail is missing there.",
        lasts=False,
    ),
    Kind.OCTETS_DOUBTFUL: Manner(
        "A message in {subject}{place} never came whole",
        "{count} messages{place} never came whole",
        "",
        "",
        "What came of each is in quarantine, and the original is untouched. Look at it in the mailbox; once more: "
        "mailpoller redeliver MID",
        lasts=False,
    ),
    Kind.POISON_QUARANTINED: Manner(
        "A message in {subject}{place} killed the service and was quarantined",
        "{count} messages{place} killed the service and were quarantined",
        "",
        "",
        "They were not parsed. What became of each: mailpoller trace MID",
        lasts=False,
    ),
    Kind.FLOOD_QUARANTINED: Manner(
        "A sender floods the mailbox {subject}{place}, and what is too much is quarantined",
        "Senders flood {count} mailboxes{place}, and what is too much is quarantined",
        "",
        "",
        "Two programs that answer one another, or an attack. Who it is: mailpoller trace MID. Whoever may send so much "
        "is named in the mailbox's brake, under except.",
        lasts=False,
    ),
}
AnyKind = Kind | DoubtKind
"""A kind of trouble, the service's own or that of a sink."""


def word_of(kind: AnyKind) -> str:
    """What a kind of trouble is called: in the log, and in the ledger."""
    return kind.value if isinstance(kind, Kind) else kind.name


def manner_of(kind: AnyKind) -> Manner:
    """How a kind of trouble is told."""
    if isinstance(kind, Kind):
        return MANNERS[kind]
    # Each queue is told of alone.
    return Manner(kind.one, kind.one, kind.over, kind.over, kind.advice, kind.patience)
