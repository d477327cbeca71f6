"""What may be asked of the outbox by the control socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from mailpoller.core.errors import MailpollerError, MessageGone
from mailpoller.core.ports import Outbox, OutboxMail
from mailpoller.engine.acceptance import Acceptance
from mailpoller.engine.control import Handler
from mailpoller.engine.postman import Postman
from mailpoller.engine.provenance import Provenance

log = structlog.get_logger(__name__)


class OutboxOperations:
    """Hands in, and does what an operator wants done about mail that waits to be sent.

    Without an ``acceptance`` and a ``postman`` (no service runs) nothing is accepted, and what is done is found by the
    service when it starts.
    """

    def __init__(
        self,
        ledger: Outbox,
        provenance: Provenance,
        acceptance: Acceptance | None = None,
        postman: Postman | None = None,
    ) -> None:
        self._ledger = ledger
        self._provenance = provenance
        self._acceptance = acceptance
        self._postman = postman

    def handlers(self) -> dict[str, Handler]:
        """Verb -> what carries it out."""
        found: dict[str, Handler] = {
            "outbox-retry": self.retry,
            "outbox-cancel": self.cancel,
            "outbox-accept": self.accept,
        }
        if self._acceptance is not None:
            found["send"] = self._acceptance.hand_in
        if self._postman is not None:
            found["outbox"] = self.report
        return found

    async def report(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """What waits by each identity, and why."""
        assert self._postman is not None
        return {"identities": await self._postman.report()}

    async def accept(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let an outbox send that was restored or copied."""
        reason = await self._provenance.accept()
        if self._postman is not None:
            self._postman.insist()
        mails = sum(one.mails for one in (await self._ledger.outbox_backlog()).values())
        return {"reason": reason, "mails": mails}

    async def retry(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Try a mail now."""
        mail = await self._mail(request)
        by = self._postman.retry if self._postman is not None else self._ledger.outbox_retry
        if not (count := await by(mail.id)):
            raise MailpollerError("nobody waits for this mail any more")
        log.info("outbox.retried", id=mail.id, identity=mail.identity, recipients=count)
        return {"id": mail.id, "recipients": count}

    async def cancel(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a mail to nobody else."""
        mail = await self._mail(request)
        by = self._postman.cancel if self._postman is not None else self._ledger.outbox_cancel
        if not (count := await by(mail.id)):
            raise MailpollerError("nobody waits for this mail any more")
        log.info("outbox.cancelled", id=mail.id, identity=mail.identity, recipients=count)
        return {"id": mail.id, "recipients": count}

    async def _mail(self, request: Mapping[str, Any]) -> OutboxMail:
        found = await self._ledger.outbox_mail(str(request["id"]).strip().lower())
        if found is None:
            raise MessageGone("the outbox has no mail of this id, or several begin so")
        return found
