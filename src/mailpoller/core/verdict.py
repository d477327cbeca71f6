"""What the rules say about a message."""

from __future__ import annotations

from dataclasses import field

from mailpoller.core.attributes import NONE_SAID, Attributes, Priority
from mailpoller.core.classification import MailClass
from mailpoller.core.formfields import Fields
from mailpoller.core.record import record


@record
class Deliver:
    """Bring the message to ``queues`` (at least one, none twice). ``held``: what was removed from it, in words, for
    which the whole is held in quarantine beside them; empty: nothing was."""

    queues: tuple[str, ...]
    attributes: Attributes = NONE_SAID
    rules: tuple[str, ...] = ()
    """The names of the rules that matched, in order; empty when only the mailbox's defaults spoke."""
    held: str = ""


@record
class Quarantine:
    """Put the message where a human looks. ``reason`` is one constant word (``auto-reply``, ``poison`` …), ``detail``
    a sentence."""

    reason: str
    detail: str = ""
    rules: tuple[str, ...] = ()

    @property
    def attributes(self) -> Attributes:
        """What a delivery to quarantine carries."""
        return Attributes(reason=self.reason, detail=self.detail)


@record
class Discard:
    """Do not deliver the message anywhere; the ledger remembers that."""

    reason: str
    rules: tuple[str, ...] = ()


Verdict = Deliver | Quarantine | Discard


@record
class Effect:
    """What a rule that matched asks for. Later rules add tags and queues, and overrule topic and priority.

    ``quarantine`` (a reason) and ``discard`` end the judging; ``stop`` ends it after this rule's other wishes are
    noted. ``kind``: the class that the message is to be of. ``by_class``: the rule asked for the class, so that a queue
    it names is meant for it, and the policy of the class is not asked. ``fields``: of the event; they replace
    those of the same name. ``redirect`` and ``forward``: destinations of the rule's own, which automatic mail goes to
    only ``by_class``; the first stand in place of queues, the others beside them.
    """

    topic: str | None = None
    queues: tuple[str, ...] = ()
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    quarantine: str | None = None
    discard: bool = False
    stop: bool = False
    kind: MailClass | None = None
    by_class: bool = False
    fields: Fields = field(default_factory=dict, hash=False)
    redirect: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()


@record
class Match:
    """A rule's answer when it matched: what follows, and why it matched, in words for ``explain`` (no message content
    beyond the pattern)."""

    effect: Effect
    why: str = ""


@record
class Judgement:
    """A verdict with its story: every rule that was asked, and the match of those that matched."""

    verdict: Verdict
    asked: tuple[tuple[str, Match | None], ...] = field(default=())
