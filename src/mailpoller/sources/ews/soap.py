"""Writing EWS requests: the envelope and one function for each operation. Elements stand in the order of the schema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from mailpoller.core.record import record

SERVER_VERSION = "Exchange2013_SP1"
"""The schema that we write: of the versions that know ``SuppressReadReceipts``, the oldest. Newer servers take it
too."""

_OPEN = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages"'
    ' xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><s:Header>'
    f'<t:RequestServerVersion Version="{SERVER_VERSION}"/>'
)


FLAG_STATUS = '<t:ExtendedFieldURI PropertyTag="0x1090" PropertyType="Integer"/>'
"""PidTagFlagStatus, as the element that names it; 2 is flagged."""


@record
class Request:
    """One request: the ``operation`` (``GetItem``) and its element."""

    operation: str
    element: str


@record
class Change:
    """What UpdateItem is to do to one item. ``kind`` is the item's element (``Message``); None for ``categories``
    leaves them."""

    uid: str
    change_key: str
    kind: str
    seen: bool = False
    flagged: bool = False
    categories: tuple[str, ...] | None = None


def envelope(request: Request, impersonated: str | None = None) -> bytes:
    """The whole request, in the name of ``impersonated`` (a primary SMTP address) if that is one."""
    who = ""
    if impersonated is not None:
        address = f"<t:PrimarySmtpAddress>{escape(impersonated)}</t:PrimarySmtpAddress>"
        who = f"<t:ExchangeImpersonation><t:ConnectingSID>{address}</t:ConnectingSID></t:ExchangeImpersonation>"
    return f"{_OPEN}{who}</s:Header><s:Body>{request.element}</s:Body></s:Envelope>".encode("utf-8", "replace")


# --- folders ---------------------------------------------------------------------------------------------------
def distinguished(name: str, mailbox: str | None = None) -> str:
    """A folder that every mailbox has, such as ``inbox``; of another ``mailbox`` than the login's own if that is
    given."""
    whose = "" if mailbox is None else f"<t:Mailbox><t:EmailAddress>{escape(mailbox)}</t:EmailAddress></t:Mailbox>"
    return f"<t:DistinguishedFolderId Id={quoteattr(name)}>{whose}</t:DistinguishedFolderId>"


def folder_id(uid: str) -> str:
    """A folder by its id."""
    return f"<t:FolderId Id={quoteattr(uid)}/>"


def get_folder(folder: str, properties: Sequence[str] = ()) -> Request:
    """GetFolder. ``folder`` is the element that names it."""
    shape = _shape("FolderShape", properties)
    return Request("GetFolder", f"<m:GetFolder>{shape}<m:FolderIds>{folder}</m:FolderIds></m:GetFolder>")


def find_folders(parent: str, *, name: str | None = None, limit: int = 200) -> Request:
    """FindFolder: the children of ``parent``, all or those called ``name``, with their names; at most ``limit``."""
    restriction = ""
    if name is not None:
        restriction = (
            '<m:Restriction><t:IsEqualTo><t:FieldURI FieldURI="folder:DisplayName"/><t:FieldURIOrConstant>'
            f"<t:Constant Value={quoteattr(name)}/></t:FieldURIOrConstant></t:IsEqualTo></m:Restriction>"
        )
    return Request(
        "FindFolder",
        f'<m:FindFolder Traversal="Shallow">{_shape("FolderShape", ["folder:DisplayName"])}'
        f'<m:IndexedPageFolderView MaxEntriesReturned="{limit}" Offset="0" BasePoint="Beginning"/>'
        f"{restriction}<m:ParentFolderIds>{parent}</m:ParentFolderIds></m:FindFolder>",
    )


def create_folder(parent: str, name: str) -> Request:
    """CreateFolder: a mail folder called ``name`` below ``parent``."""
    return Request(
        "CreateFolder",
        f"<m:CreateFolder><m:ParentFolderId>{parent}</m:ParentFolderId><m:Folders><t:Folder>"
        f"<t:FolderClass>IPF.Note</t:FolderClass><t:DisplayName>{escape(name)}</t:DisplayName>"
        "</t:Folder></m:Folders></m:CreateFolder>",
    )


# --- items -----------------------------------------------------------------------------------------------------
def sync_items(folder: str, state: str, properties: Sequence[str], limit: int) -> Request:
    """SyncFolderItems: at most ``limit`` changes since ``state`` (empty: since ever)."""
    known = f"<m:SyncState>{escape(state)}</m:SyncState>" if state else ""
    return Request(
        "SyncFolderItems",
        f"<m:SyncFolderItems>{_shape('ItemShape', properties)}"
        f"<m:SyncFolderId>{folder_id(folder)}</m:SyncFolderId>{known}"
        f"<m:MaxChangesReturned>{limit}</m:MaxChangesReturned><m:SyncScope>NormalItems</m:SyncScope></m:SyncFolderItems>",
    )


def get_items(uids: Iterable[str], properties: Sequence[str], *, content: bool = False) -> Request:
    """GetItem; with ``content`` the message itself too."""
    shape = _shape("ItemShape", properties, "<t:IncludeMimeContent>true</t:IncludeMimeContent>" if content else "")
    return Request("GetItem", f"<m:GetItem>{shape}<m:ItemIds>{_items(uids)}</m:ItemIds></m:GetItem>")


def update_items(changes: Iterable[Change]) -> Request:
    """UpdateItem, whatever others changed meanwhile. No receipt goes out for what is marked as read."""
    return Request(
        "UpdateItem",
        '<m:UpdateItem ConflictResolution="AlwaysOverwrite" MessageDisposition="SaveOnly" SuppressReadReceipts="true">'
        f"<m:ItemChanges>{''.join(_change(one) for one in changes)}</m:ItemChanges></m:UpdateItem>",
    )


def move_items(uids: Iterable[str], target: str) -> Request:
    """MoveItem. ``target`` is the element that names the folder."""
    return Request(
        "MoveItem",
        f"<m:MoveItem><m:ToFolderId>{target}</m:ToFolderId><m:ItemIds>{_items(uids)}</m:ItemIds>"
        "<m:ReturnNewItemIds>true</m:ReturnNewItemIds></m:MoveItem>",
    )


def delete_items(uids: Iterable[str], how: str) -> Request:
    """DeleteItem; ``how`` is SoftDelete or HardDelete. No receipt goes out for what nobody read."""
    return Request(
        "DeleteItem",
        f'<m:DeleteItem DeleteType="{how}" '
        f'SuppressReadReceipts="true"><m:ItemIds>{_items(uids)}</m:ItemIds></m:DeleteItem>',
    )


def _items(uids: Iterable[str]) -> str:
    return "".join(f"<t:ItemId Id={quoteattr(uid)}/>" for uid in uids)


def _field(name: str) -> str:
    return f'<t:FieldURI FieldURI="{name}"/>'


def _shape(name: str, properties: Sequence[str], more: str = "") -> str:
    fields = "".join(map(_field, properties))
    wanted = f"<t:AdditionalProperties>{fields}</t:AdditionalProperties>" if fields else ""
    return f"<m:{name}><t:BaseShape>IdOnly</t:BaseShape>{more}{wanted}</m:{name}>"


def _change(change: Change) -> str:
    fields: list[tuple[str, str]] = []
    if change.categories is not None:
        names = "".join(f"<t:String>{escape(one)}</t:String>" for one in change.categories)
        fields.append((_field("item:Categories"), f"<t:Categories>{names}</t:Categories>"))
    if change.flagged:
        fields.append((_field("item:Flag"), "<t:Flag><t:FlagStatus>Flagged</t:FlagStatus></t:Flag>"))
        # What older clients and servers go by (MS-OXOFLAG section 2.2.1.1): item:Flag alone is taken, and not kept,
        # by some.
        fields.append((FLAG_STATUS, f"<t:ExtendedProperty>{FLAG_STATUS}<t:Value>2</t:Value></t:ExtendedProperty>"))
    if change.seen:
        fields.append((_field("message:IsRead"), "<t:IsRead>true</t:IsRead>"))
    updates = "".join(
        f"<t:SetItemField>{field}<t:{change.kind}>{value}</t:{change.kind}></t:SetItemField>" for field, value in fields
    )
    item = f"<t:ItemId Id={quoteattr(change.uid)} ChangeKey={quoteattr(change.change_key)}/>"
    return f"<t:ItemChange>{item}<t:Updates>{updates}</t:Updates></t:ItemChange>"
