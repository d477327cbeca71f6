"""Looking at items by their ids, many in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mailpoller.core.errors import TransientError
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.reader import Node
from mailpoller.sources.ews.replies import FOLDER_GONE, GONE, Reply

AT_ONCE = 100
"""Items of one request."""
DOING = "show messages"


@dataclass(slots=True)
class Looked:
    """Items by id, as the server shows them, and of the others what it says instead."""

    items: dict[str, Node] = field(default_factory=dict)
    refused: dict[str, Reply] = field(default_factory=dict)

    @property
    def gone(self) -> set[str]:
        """Those that are not there."""
        return {uid for uid, reply in self.refused.items() if reply.code in GONE}


async def look_at(client: EwsClient, uids: Sequence[str], properties: Sequence[str] = ()) -> Looked:
    """Every item of ``uids`` is in one of the two. Raises as the client; :class:`FolderGone` if all of them lack
    their folder."""
    looked = Looked()
    for begin in range(0, len(uids), AT_ONCE):
        piece = list(dict.fromkeys(uids[begin : begin + AT_ONCE]))
        told = await _ask(client, piece, properties, looked)
        missing = [uid for uid in piece if uid not in looked.items]
        errors = [reply for reply in told if not reply.ok]
        if missing and len(missing) == len(errors) and all(reply.code in GONE for reply in errors):
            looked.refused.update(dict.fromkeys(missing, errors[0]))
            continue
        # Items have their ids and errors have none, so an error beside others is asked for again, alone.
        for uid in missing:
            replies = await _ask(client, [uid], properties, looked) if len(piece) > 1 else told
            if uid in looked.items:
                continue
            if len(replies) != 1 or replies[0].ok:
                raise TransientError(f"the server does not {DOING}: an answer to another question")
            looked.refused[uid] = replies[0]
    return looked


async def _ask(client: EwsClient, uids: list[str], properties: Sequence[str], looked: Looked) -> list[Reply]:
    replies = await client.ask(soap.get_items(uids, properties), DOING)
    for reply in replies:
        items = reply.node.find("Items") if reply.ok else None
        for node in items.children if items is not None else ():
            item = node.find("ItemId")
            if item is not None and (uid := item.attributes.get("Id", "")) in uids:
                looked.items[uid] = node
    if replies and all(reply.code in FOLDER_GONE for reply in replies):
        raise replies[0].trouble(DOING)
    return replies
