"""The answers of a sink that brings its messages one by one, put together for whoever handed in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import MailpollerError

Answer = Receipt | Refusal


def sifted(
    batch: Sequence[Delivery],
    known: Callable[[str], bool],
    objection: Callable[[Delivery], str],
    repeated: Callable[[str], Receipt],
) -> tuple[dict[str, Answer], dict[str, Delivery]]:
    """The answers for which nobody has to be asked, and the deliveries that are to be brought, each once, both by
    delivery id. ``known``: whether an id is held already. ``objection``: why a message is not brought at
    all, else empty."""
    answers: dict[str, Answer] = {}
    fresh: dict[str, Delivery] = {}
    for one in batch:
        if known(one.delivery_id):
            answers[one.delivery_id] = repeated(one.delivery_id)
        elif reason := objection(one):
            answers[one.delivery_id] = Refusal(one.delivery_id, reason, permanent=True, unasked=True)
        else:
            fresh[one.delivery_id] = one
    return answers, fresh


def in_order(
    batch: Sequence[Delivery],
    answers: Mapping[str, Answer],
    trouble: MailpollerError | None,
    repeated: Callable[[str], Receipt],
) -> list[Answer]:
    """An answer for each delivery, in its place. ``answers``: by delivery id, as far as there are any; the others are
    put off for the queue's ``trouble``. ``repeated`` makes the receipt of the second one with the same id.

    Raises ``trouble`` if nothing is known of any.
    """
    if trouble is not None and not answers:
        raise trouble
    seen: set[str] = set()
    found: list[Answer] = []
    for one in batch:
        answer = answers.get(one.delivery_id) or Refusal(one.delivery_id, str(trouble), blame="queue")
        if isinstance(answer, Receipt) and one.delivery_id in seen:
            answer = repeated(one.delivery_id)
        seen.add(one.delivery_id)
        found.append(answer)
    return found
