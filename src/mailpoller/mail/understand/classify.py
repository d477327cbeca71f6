"""What kind of mail it is: a person's, or which sort of program's (RFC 3834, RFC 2919, RFC 6522).

Everything is told from the header. Below it we look only where the header says that a report stands there, and in a
bounce, whose details are in its body. The order is that of what evidence excludes: 38 of 1,204 bounces bear a List-Id,
and no list mail is a bounce. Strict for people: what a person could have written is theirs, and wording in a text is
no evidence at all, since people quote bounces, absences and lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mailpoller.core.classification import HUMAN, Classification
from mailpoller.core.message import Message
from mailpoller.core.spool import Block
from mailpoller.mail.charset import decode
from mailpoller.mail.structure import Part
from mailpoller.mail.understand import marks, subjects
from mailpoller.mail.understand.bounce import first_octets, read_bounce
from mailpoller.mail.understand.marks import DAEMON_HEADS, MARKS, NAME_HEADS, REPORTING
from mailpoller.mail.understand.ses import read_notice
from mailpoller.mail.understand.subjects import may_tell

Opened = tuple[Block, list[Part]]


def classify(
    message: Message, first: Mapping[str, int], fields: Mapping[str, str], opened: Callable[[], Opened]
) -> Classification:
    """The class of ``message`` and its evidence; never raises, and takes bounded time.

    ``first``: the names of its fields in lower case, and where each stands first in ``message.headers``. ``fields``:
    its Content fields, still encoded. ``opened``: its octets and the parts in the first of them; called only if the
    header says that there is a report, or that it is a bounce.
    """
    subject, written = message.subject, fields.get("content-type", "")
    if (
        MARKS.isdisjoint(first)
        and not is_null(message, first)
        and not may_tell(subject)
        and not _may_be_a_daemon(message)
        and (written.startswith("text/plain") or REPORTING.match(written) is None)
    ):
        return HUMAN  # nothing to look at: nearly all mail of people
    return _Case(message, first, fields, opened).decided()


def _may_be_a_daemon(message: Message) -> bool:
    """A quick look: True if the sender may be a program that reports about mail."""
    if not message.from_:
        return True
    sender, back = message.from_[0], message.return_path
    return (
        not sender.address
        or sender.address[:4].casefold() in DAEMON_HEADS
        or sender.name[:4].casefold() in NAME_HEADS
        or (back is not None and back != sender.address and back[:4].casefold() in DAEMON_HEADS)
    )


def is_null(message: Message, first: Mapping[str, int]) -> bool:
    """True if the envelope sender is null. Exchange notes it where a stranger might have, at the end of the header:
    that does for what is said of the mail, and not for where an answer goes."""
    if message.return_path is not None or "return-path" not in first:
        return message.return_path == ""
    return marks.EXCHANGE in first and [value.strip() for value in message.header("return-path")] == ["<>"]


class _Case:
    """One message, and what speaks for which class."""

    def __init__(
        self, message: Message, first: Mapping[str, int], fields: Mapping[str, str], opened: Callable[[], Opened]
    ) -> None:
        self.message = message
        self.first = first
        self.fields = fields
        self.opened = opened
        self.subject = subjects.folded(message.subject)
        self.reply = subjects.is_reply(self.subject)
        self.lists = self.having(marks.LISTS)
        self.answer, self.absence = subjects.is_answer(self.subject), subjects.is_absence(self.subject)
        self._worded: bool | None = None
        self.type = fields.get("content-type", "").strip().lower()[:1000]
        self.null = is_null(message, first)
        sender = message.from_[0] if message.from_ else None
        self.local = (sender.address.partition("@")[0] if sender else "").casefold().strip("\"' <>")[:100]
        self.name = (sender.name if sender else "").casefold().strip("\"' ")[:100]
        self.submitted = self._submitted()
        self.precedence = self._precedence()

    def value(self, name: str) -> str:
        """The first field of that name, in small letters; "" without one."""
        at = self.first.get(name)
        return "" if at is None else self.message.headers[at][1][:1000].strip().casefold()

    def having(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if name in self.first]

    def _submitted(self) -> str:
        """The keyword of Auto-Submitted, "" for none and for ``no``."""
        if "auto-submitted" not in self.first:
            return ""
        for value in self.message.header("auto-submitted"):
            keyword = marks.COMMENT.sub(" ", value[:1000]).partition(";")[0].strip().casefold()
            if keyword and keyword != "no":
                return keyword
        return ""

    def _precedence(self) -> str:
        for name in marks.PRECEDENCES:
            if value := self.value(name):
                return value.replace("-", "_")
        return ""

    @property
    def by_a_person(self) -> bool:
        """A program that people write mail with says so, or they answer somebody."""
        return self.reply or any(
            marks.PERSONAL_CLIENTS.search(self.value(name)) is not None for name in ("user-agent", "x-mailer")
        )

    @property
    def from_a_system(self) -> bool:
        return self.local in marks.DAEMONS or self.local.startswith(marks.POSTMASTERS)

    def decided(self) -> Classification:
        if marks.SES in self.first and (found := self._noticed()):
            return found
        reported = self._reported()
        if reported == "bounce":
            return self._bounce(["type-delivery-status", *self._bounce_evidence()])
        if reported == "mdn" and self.worded and (strong := self._bounce_evidence()):
            return self._bounce(strong)  # a mail system that takes the one report for the other
        if reported:
            return Classification("report", reported, (f"type-{reported}",))
        if found := self._other_report():
            return found
        if evidence := self._bounce_evidence():
            return self._bounce(evidence)
        for judge in (self._calendar, self._challenge, self._answer, self._list, self._generated, self._bulk):
            if found := judge():
                return found
        if self.null:
            return Classification("auto-reply", "null-return-path", ("null-return-path",))
        return HUMAN

    def _noticed(self) -> Classification | None:
        """What a notice of Amazon's sending service tells."""
        octets, parts = self.opened()
        part = next((part for part in parts if part.content_type == "text/plain"), None)
        told = read_notice(decode(first_octets(octets, part), part.charset)[0]) if part is not None else None
        if told is None:
            return None
        kind, bounce, subclass = told
        if kind == "report":
            return Classification("report", subclass, (marks.SES,))
        return Classification("bounce", subclass, (marks.SES,), bounce)

    # --- reports -----------------------------------------------------------------------------------------------------

    def _reported(self) -> str:
        """``bounce`` or a kind of report that the type of the top part names, or else one of its parts; or ""."""
        kind = self.type.partition(";")[0].strip()
        if kind in marks.MESSAGE_TYPES:
            return marks.MESSAGE_TYPES[kind]
        if kind != "multipart/report":
            return ""
        written = marks.REPORT_TYPE.search(self.type)
        named = marks.REPORT_TYPES.get(written[1]) if written is not None else None
        if named:
            return named
        for part in self.opened()[1]:
            if part.content_type in marks.MESSAGE_TYPES:
                return marks.MESSAGE_TYPES[part.content_type]
        return "" if self.null or not subjects.is_receipt(self.subject) else "mdn"

    def _other_report(self) -> Classification | None:
        """Reports that are known by their subject or name, since their type is that of any file."""
        if found := self.having(("tls-report-domain", "tls-report-submitter")):
            return Classification("report", "tls-rpt", tuple(found))
        attached = bool(self.type) and not self.type.startswith("text/plain")
        if (
            subjects.is_dmarc(self.subject)
            and not self.by_a_person
            and (attached or self.null or "report-id" in self.subject)
        ):
            return Classification("report", "dmarc", ("subject-dmarc",))
        named = self.fields.get("content-disposition", "") + self.fields.get("content-type", "")
        if "!" in named and marks.AGGREGATE.search(named[:2000]):
            return Classification("report", "dmarc", ("name-dmarc",))
        if found := self.having(("feedback-type", "x-hmxmroriginalrecipient")):
            return Classification("report", "arf", tuple(found))
        if not self.by_a_person and subjects.is_abuse(self.subject):
            return Classification("report", "arf", ("subject-abuse",))
        if (self.null or self.submitted) and not self.reply and subjects.is_receipt(self.subject):
            return Classification("report", "mdn", ("subject-receipt",))
        return None

    # --- bounces -----------------------------------------------------------------------------------------------------

    def _bounce_evidence(self) -> list[str]:
        absent = bool(self.answer or self.absence)
        strong = self.having(marks.BOUNCED)
        if "from" in self.first and marks.DOMINO.match(self.value("from")) and (not absent or self.worded):
            strong.append("from-daemon")
        path = (self.message.return_path or "").partition("@")[0].casefold().strip("\"'<> ")
        if self.local in marks.DAEMONS or self.local.startswith("microsoftexchange"):
            if not absent or self.worded:
                strong.append("from-daemon")
        elif self.local.startswith(marks.POSTMASTERS):
            office = not self.name or marks.OFFICE_NAMES.search(self.name) is not None
            if not absent and (self.null or (office and not self.by_a_person) or self.worded):
                strong.append("from-postmaster")
        if path in marks.DAEMONS and not absent:
            strong.append("return-path-daemon")
        if self.null and "from" in self.first and not self.local and not absent:
            strong.append("from-nobody")
        if "x-mlserver" in self.first and self.local.endswith("-admin") and ".fml" in self.value("message-id"):
            strong.append("from-a-list-server")
        if self.name.startswith(marks.SYSTEM_NAMES) and not self.by_a_person and not absent:
            strong.append("name-of-a-mail-system")
        # What a person may have as well counts only together.
        weak = ["null-return-path"] if self.null else []
        if self.submitted:
            weak.append("auto-submitted")
        if self._from_an_office():
            weak.append("from-an-office")
        if self.precedence in ("bulk", "junk") and not self.lists:
            weak.append("precedence")
        if strong:
            return strong + weak + (["subject-bounce"] if self.worded else [])
        if weak and not absent and self.worded and not self.by_a_person and not self._newsletter():  # noqa: SIM102
            if self.null or subjects.speaks_of_mail_that_bounced(self.subject):
                return [*weak, "subject-bounce"]
        return []

    def _from_an_office(self) -> bool:
        return (
            self.local in marks.OFFICES
            or self.name.startswith(marks.ADMINISTRATORS)
            or marks.OFFICE_LOCALS.search(self.local) is not None
            or marks.SYSTEM_WORDS.search(self.name) is not None
        )

    @property
    def worded(self) -> bool:
        """The subject has the words of a bounce, and does not answer one. Hundreds of phrases: asked last."""
        if self._worded is None:
            self._worded = not self.reply and subjects.speaks_of_a_bounce(self.subject)
        return self._worded

    def _newsletter(self) -> bool:
        """The marks of mail to many, which a report about one message does not bear; it may have come by a list."""
        by_a_list = bool(self.lists) and self._from_an_office() and self.local not in marks.NOBODY
        return bool(self.lists or self.having(marks.BULK)) and not self.null and not by_a_list

    def _bounce(self, evidence: list[str]) -> Classification:
        octets, parts = self.opened()
        bounce, subclass = read_bounce(self.message, octets, parts)
        if not subclass:
            subclass = "delayed" if subjects.speaks_of_a_delay(self.subject) else "hard"
        return Classification("bounce", subclass, tuple(evidence), bounce)

    # --- what else programs send -------------------------------------------------------------------------------------

    def _calendar(self) -> Classification | None:
        if self.type.startswith(("text/calendar", "application/calendar")):
            method = re.search(r";\s*method\s*=\s*\"?(\w{1,20})", self.type)
            return Classification("calendar", method[1] if method else "", ("type-calendar",))
        if self.value("content-class").startswith("urn:content-classes:calendarmessage"):
            return Classification("calendar", "", ("content-class",))
        return None

    def _challenge(self) -> Classification | None:
        if found := self.having(marks.CHALLENGERS):
            return Classification("challenge", "", tuple(found))
        sender = self.message.from_[0].address.casefold() if self.message.from_ else ""
        asked = subjects.is_challenge(self.subject)
        if any(place in sender for place in marks.CHALLENGING) and (asked or self.null or self.submitted):
            return Classification("challenge", "", ("from-challenger",))
        if asked and not self.by_a_person and (self.null or self.submitted or self.precedence or self._asked_before()):
            return Classification("challenge", "", ("subject-challenge",))
        return None

    def _asked_before(self) -> bool:
        return bool(self.message.in_reply_to or self.message.references)

    def _answer(self) -> Classification | None:
        evidence = []
        answer, absence = self.answer, self.absence
        to_many = bool(self.lists) or self.precedence == "list"
        replied = self.submitted.startswith(("auto-replied", "auto_replied", "auto-reply", "autoreply", "vacation"))
        if replied:
            evidence.append("auto-submitted")
        evidence += [mark for mark in self.having(marks.ANSWERED) if self.value(mark) not in ("no", "false", "0")]
        if self.precedence in ("auto_reply", "autoreply", "auto_response"):
            evidence.append("precedence")
        if self.value("x-autogenerated") == "reply":
            evidence.append("x-autogenerated")
        if "autorespond" in self.value("x-post-messageclass"):
            evidence.append("x-post-messageclass")
        if self.value("x-apple-action") == "vacation":
            evidence.append("x-apple-action")
        if not to_many and marks.ANSWERING_PROGRAMS.search(self.value("x-mailer")) is not None:
            evidence.append("x-mailer")
        if not to_many and self._by_an_inbox_rule():
            evidence.append(marks.INBOX_RULES)
        if self._delivered_to_autoresponder():
            evidence.append("delivered-to-autoresponder")
        beside = bool(
            self.submitted
            or self.null
            or self.precedence in ("bulk", "junk")
            or "x-auto-response-suppress" in self.first
        )
        if answer or absence:
            person = to_many or self.by_a_person
            if (beside and not to_many) or (
                not person and (answer == subjects.SURE or self.from_a_system or self._asked_before())
            ):
                evidence.append("subject-absence")
            elif not person and self._by_exchange_55():
                evidence += ("x-mailer", "subject-absence")
        elif beside and not to_many and not self.having(marks.BULK) and self._speaks_of_absence():
            evidence.append("subject-absence")
        if not evidence:
            return None
        absent = "subject-absence" in evidence or subjects.speaks_of_absence(self.subject)
        return Classification("auto-reply", "absence" if absent else "answer", tuple(evidence))

    def _by_an_inbox_rule(self) -> bool:
        """A rule of the sender's own mailbox at Exchange wrote it, as an answer: what one passes on has the sender of
        the original, a Resent-From, or a subject that says so."""
        owner = self.value(marks.INBOX_RULES).strip("<> ")
        sender = self.message.from_[0].address.casefold() if self.message.from_ else ""
        return (
            bool(owner)
            and owner == sender
            and "resent-from" not in self.first
            and self._asked_before()
            and not subjects.passes_on(self.subject)
            and bool(
                self.submitted or self.null or "rules agent" in self.value("x-ms-exchange-generated-message-source")
            )
        )

    def _by_exchange_55(self) -> bool:
        """``Out of Office: …`` of a server that marks its answers by nothing else. It stands in the header of people's
        mail, too: theirs is about a day or about themselves, or to several."""
        message = self.message
        about = set(re.findall(r"\w+", self.subject.partition(":")[2]))
        if about <= set(re.findall(r"\w+", self.name)):
            return False
        return (
            self.value("x-mailer").startswith(marks.EXCHANGE_55)
            and len(message.to) == 1
            and not message.cc
            and subjects.is_absence_about(self.subject)
        )

    def _delivered_to_autoresponder(self) -> bool:
        return any("autoresponder" in value.casefold() for value in self.message.header("delivered-to")[:20])

    def _speaks_of_absence(self) -> bool:
        """For what is known to be a program's: these answer ``Re: …`` too."""
        about = subjects.without_reply(self.subject)
        if subjects.is_answer(about) or subjects.is_absence(about):
            return True
        if subjects.is_own_absence(about, self.name or self.local) or (
            self._asked_before() and subjects.is_automatic(self.subject)
        ):
            return True
        return (self.null or self.precedence in ("bulk", "junk")) and subjects.speaks_of_absence(about)

    def _list(self) -> Classification | None:
        found = list(self.lists)
        if self.precedence == "list":
            found.append("precedence")
        if self.precedence in ("bulk", "list") and marks.OWNERS.search(self.value("sender")) is not None:
            found.append("sender-of-a-list")
        return Classification("list", "", tuple(found)) if found else None

    def _generated(self) -> Classification | None:
        evidence = [*(["auto-submitted"] if self.submitted else []), *self.having(marks.PROGRAMS)]
        if self.value("x-autogenerated") not in ("", "no", "reply"):
            evidence.append("x-autogenerated")
        nobody = self.local in marks.NOBODY and not self.message.reply_to
        if not evidence and nobody and "x-auto-response-suppress" in self.first:
            evidence.append("x-auto-response-suppress")
        return Classification("auto-generated", "", tuple(evidence)) if evidence else None

    def _bulk(self) -> Classification | None:
        found = self.having(marks.BULK)
        if self.precedence in ("bulk", "junk"):
            if self.null and not found:
                return None  # it would like to hear of what it could not deliver to many
            found.append("precedence")
        return Classification("bulk", "", tuple(found)) if found else None
