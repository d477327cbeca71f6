"""The pipeline: what one mailbox makes of a message, checks first and then the rules in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Literal, Protocol

import structlog

from mailpoller.core.attributes import Attributes, Priority
from mailpoller.core.classification import MailClass
from mailpoller.core.conversation import Conversation
from mailpoller.core.errors import machine_trouble
from mailpoller.core.message import Message
from mailpoller.core.policy import USUAL, Policy, is_from
from mailpoller.core.ports import Rule
from mailpoller.core.removal import Removal
from mailpoller.core.standing import USUAL_STANDING, Standing
from mailpoller.core.verdict import Deliver, Discard, Judgement, Match, Quarantine, Verdict
from mailpoller.engine.brake import Brake
from mailpoller.engine.rule_costs import RuleCosts
from mailpoller.mail.understand.arrival import Arrival
from mailpoller.storage.listed import sender_list

log = structlog.get_logger(__name__)

OWN_MAIL = "own-mail"
TEST_MESSAGE = "test-message"
OVERSIZE = "oversize"
BY_RULE = "rule"
TOO_MANY_HOPS = "too-many-hops"
FLOOD = "flood"
RULE_FAILED = "rule-failed"
NO_QUEUE = "no-queue"
"""The reasons that the pipeline gives, beside those that a rule names, and the classes that a policy speaks of."""


class ConversationFinder(Protocol):
    """What tells which conversation a message belongs to, in bounded time, and never raises."""

    @property
    def needs_body(self) -> bool: ...

    def find(self, message: Message) -> Conversation | None: ...

    def returned(self, message: Message) -> str: ...


Asked = list[tuple[str, Match | None]]


class Pipeline:
    """Judges the messages of one mailbox, in this order; the first check that speaks decides.

    1. Mail that we sent ourselves (it bears our loop header) is quarantined as ``own-mail``, which the dispatcher
      keeps in the local directory: by mail it would go in a circle, and a stranger may have forged the header.
    2. A subject with the quarantine ``marker`` is quarantined as ``test-message``; an empty marker is never found.
    3. A message that was cut because it is too large, if ``oversize`` is ``quarantine``.
    4. A message that has gone through more than ``max_hops`` servers is quarantined as ``too-many-hops``, and one of
      which the ``brake`` says that its sender writes too often as ``flood``.
    5. The rules in order; with ``force_default_queue`` those alone that ask for it, and no queue that they name. Later
       rules add queues and tags, and overrule topic, priority and class; quarantine and discard end it; stop
       ends it after that rule's other wishes are noted.
       What they redirect goes to no queue but theirs, what they forward beside the others; automatic mail does neither,
       unless the rule asks for its class.
    6. The policy of the message's class, if there is one that does not except its sender: quarantined or discarded
       with the class for a reason, or a queue in place of those that rules named. It is not asked if a rule ended the
       judging, or named a queue because of the class.
       What is delivered in the end goes without the attachments that ``removal`` takes, and is held in quarantine.
    7. ``default_queue`` if no rule named one; without it the message is quarantined as ``no-queue``.

    A rule that raises has a bug that every retry would meet again: the message is quarantined as ``rule-failed``,
    which neither loses it nor lets it come back for ever.

    To make one raises :class:`~mailpoller.core.errors.ConfigError` if a list of excepted senders cannot be read: a
    policy that discards would take their mail.
    """

    def __init__(
        self,
        *,
        mailbox: str,
        default_queue: str | None = None,
        default_topic: str = "",
        standing: Standing = USUAL_STANDING,
        policies: Mapping[MailClass, Policy] = USUAL,
        oversize: Literal["truncate", "quarantine"] = "truncate",
        marker: str = "",
        rules: Sequence[Rule] = (),
        conversations: ConversationFinder | None = None,
        arrival: Arrival | None = None,
        removal: Removal | None = None,
        max_hops: int = 100,
        brake: Brake | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._default_topic = default_topic
        self._usual = None if default_queue is None else Deliver((default_queue,), Attributes(default_topic))
        """Of what no rule and no policy speaks: one for all such mail, which is nearly all."""
        self._policies = policies
        self._lists = {
            path: sender_list(path).required() for policy in self._policies.values() for path in policy.files
        }
        self._quarantines_oversize = oversize == "quarantine"
        self._marker = marker
        self._max_hops = max_hops
        self._brake = brake
        self._standing = standing
        self._forced = standing.forced
        self._rules = tuple(rule for rule in rules if not standing.forced or getattr(rule, "asks_forced", False))
        self.costs = RuleCosts(mailbox, self._rules)
        """What the rules cost."""
        self._conversations = conversations
        self._arrival = arrival or Arrival()
        self._removal = removal
        self.needs_body = (
            removal is not None
            or any(getattr(rule, "needs_body", True) for rule in self._rules)
            or (conversations is not None and conversations.needs_body)
        )
        """True if a rule may look below the header (one that does not say may), so that a large body is worth parsing
        in a thread before :meth:`judge`."""

    def judge(self, message: Message, *, again: bool = False) -> Judgement:
        """The verdict, and every rule that was asked for it with its answer. Never raises but MemoryError. ``again``:
        an operator wants it judged once more, so that the brake neither counts nor stops it."""
        self._arrival.note(message)
        verdict = self._check(message, again=again)
        if verdict is not None:
            return Judgement(verdict)
        message.standing = self._standing
        if message.conversation is None:
            self.converse(message)
        asked: Asked = []
        verdict = self._ask(message, asked)
        return Judgement(verdict, tuple(asked))

    @property
    def tells_conversations(self) -> bool:
        """True if conversations are looked for at all."""
        return self._conversations is not None

    def converse(self, message: Message) -> None:
        """Note the conversation, as far as the message itself tells it."""
        if self._conversations is not None:
            message.conversation = self._conversations.find(message)
            if id := self._conversations.returned(message):
                message.brings_back(id)

    def _check(self, message: Message, *, again: bool) -> Verdict | None:
        """Everything that is decided before a rule is asked."""
        if message.looped:
            return Quarantine(OWN_MAIL, "the message bears our own loop header")
        if self._marker and self._marker in message.subject:
            return Quarantine(TEST_MESSAGE, "the subject bears the quarantine marker")
        if message.raw.truncated and self._quarantines_oversize:
            return Quarantine(OVERSIZE, "the message is larger than max_message_size")
        if len(message.headers) > self._max_hops and (hops := len(message.header("Received"))) > self._max_hops:
            return Quarantine(TOO_MANY_HOPS, f"the message has gone through {hops} servers, which is a circle")
        if self._brake is not None and not again and self._brake.stops(message):
            return Quarantine(FLOOD, "its sender writes more often than brake allows")
        return None

    def _ask(self, message: Message, asked: Asked) -> Verdict:
        """The verdict of the rules; each that is asked is appended to ``asked``."""
        topic = self._default_topic
        priority: Priority = "normal"
        queues: dict[str, None] = {}
        beside: dict[str, None] = {}  # what a rule forwards goes to the queues as well
        tags: dict[str, None] = {}
        matched: list[str] = []
        decided = False  # by a rule that knew the class, or let nothing else speak
        for rule in (self.costs.timed() or self._rules) if self._rules else ():
            try:
                match = rule.judge(message)
            except Exception as error:
                if machine_trouble(error) is not None:
                    raise  # not the rule's: the message is tried again later
                asked.append((rule.name, None))
                return self._failed(rule, error, message, matched)
            asked.append((rule.name, match))
            if match is None:
                continue
            matched.append(rule.name)
            effect = match.effect
            if effect.quarantine is not None:
                return Quarantine(effect.quarantine, f"the rule {rule.name} wants it", tuple(matched))
            if effect.discard:
                return Discard(BY_RULE, tuple(matched))
            if effect.topic is not None:
                topic = effect.topic
            if effect.priority is not None:
                priority = effect.priority
            if effect.kind is not None:
                message.reclassify(effect.kind)
            if effect.fields:
                message.fields = {**message.fields, **effect.fields}
            decided = decided or effect.stop
            if not self._forced:
                queues.update(dict.fromkeys(effect.queues))
                decided = decided or (effect.by_class and bool(effect.queues))
                if effect.redirect or effect.forward:
                    if not effect.by_class and (why := _automatic(message)):
                        asked[-1] = (rule.name, replace(match, why=f"{match.why}; not sent on, for it is {why}"))
                    else:
                        queues.update(dict.fromkeys(effect.redirect))
                        beside.update(dict.fromkeys(effect.forward))
                        decided = decided or effect.by_class
            tags.update(dict.fromkeys(effect.tags))
            if effect.stop:
                break
        if self._policies and not decided:
            policy = self._policies.get(message.classification.kind)
            if policy is not None and not self._excepted(message, policy):
                if policy.word is not None:
                    return _by_class(policy.word, message, tuple(matched))
                queues = {policy.queue: None}
        held = self._remove(message) if self._removal is not None and (queues or beside or self._usual) else ""
        if self._usual is not None and not (matched or queues or held):
            return self._usual
        named = tuple(queues) or (self._usual.queues if self._usual is not None else ())
        named = tuple(dict.fromkeys((*named, *beside)))
        if not named:
            return Quarantine(NO_QUEUE, "no rule names a queue and the mailbox has no default_queue", tuple(matched))
        return Deliver(named, Attributes(topic, priority, tuple(tags)), tuple(matched), held)

    def _remove(self, message: Message) -> str:
        """Remove attachments from what queues are told; what that was, in words."""
        assert self._removal is not None
        if any(one.what == "body" for one in message.body.undone):
            return "what is attached to it could not be told"
        forwarded = message.body.forwarded
        of = len(message.body.attachments) + (len(forwarded.attachments) if forwarded is not None else 0)
        body, number = self._removal.applied(message.body)
        if not number:
            return ""
        message.take_body(body)
        return f"of {of} attachments {number} are here alone"

    def _excepted(self, message: Message, policy: Policy) -> bool:
        """True if the policy leaves the sender alone."""
        return is_from(message, policy.senders) or any(
            is_from(message, self._lists[path].now()) for path in policy.files
        )

    def _failed(self, rule: Rule, error: Exception, message: Message, matched: list[str]) -> Quarantine:
        """Say which rule raised what and where, but not the error's words: they may hold a piece of the message."""
        kind = type(error).__name__
        log.error(
            "rule.failed",
            mailbox=self._mailbox,
            mid=message.raw.claim.mid,
            rule=rule.name,
            error=kind,
            raised_at=_place(error),
        )
        return Quarantine(RULE_FAILED, f"the rule {rule.name} raised {kind}", tuple(matched))


_PROGRAMS: frozenset[MailClass] = frozenset(("bounce", "report", "challenge", "auto-reply", "auto-generated"))


def _automatic(message: Message) -> str:
    """Why a message is not sent on by a rule that does not ask for its class; empty: it may be. Programs that answer
    one another would never end, and who gets a bounce that is not his learns what somebody else wrote."""
    if message.auto is not None:
        return f"automatic ({message.auto})"
    return f"of the class {message.classification.kind}" if message.classification.kind in _PROGRAMS else ""


def _by_class(word: str, message: Message, matched: tuple[str, ...]) -> Verdict:
    """What a policy says that does not deliver."""
    found = message.classification
    if word == "discard":
        return Discard(found.kind, matched)
    return Quarantine(found.kind, f"the message is of the class {found.kind}: {', '.join(found.evidence)}", matched)


def _place(error: Exception) -> str:
    """File and line where ``error`` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
