"""An Exchange server as its published contract describes it (EWS reference, MS-OXWS*), in a thread, on a free port.

It is strict: an element, attribute or property that the contract does not have at that place, a missing header or an
unknown operation is refused and noted in :attr:`Exchange.complaints`. It can throttle, fail, forget sync states, page,
reorder, cut and lie on command.

with Exchange() as server:
    server.deliver(b"Subject: hello\r\n\r\n")
    ...                                               # talk to server.url
    server.upset("GetItem", Upset.busy(milliseconds=300))
    assert server.complaints == []
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from servers.ports import free_port
from servers.requests import Handler

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
MESSAGES = "http://schemas.microsoft.com/exchange/services/2006/messages"
TYPES = "http://schemas.microsoft.com/exchange/services/2006/types"
ERRORS = "http://schemas.microsoft.com/exchange/services/2006/errors"
PREFIX = {SOAP: "s", MESSAGES: "m", TYPES: "t"}

ITEMS = ("t:Message", "t:MeetingRequest", "t:PostItem", "t:Item", "t:Contact")
FOLDER_REF = "t:FolderId|t:DistinguishedFolderId"

# element -> its children in order: "?" may be missing, "*" any number, "+" at least one, "a|b" one of them.
CHILDREN: dict[str, tuple[str, ...]] = {
    "s:Envelope": ("s:Header", "s:Body"),
    "s:Header": ("t:RequestServerVersion", "t:ExchangeImpersonation?"),
    "t:ExchangeImpersonation": ("t:ConnectingSID",),
    "t:ConnectingSID": ("t:PrimarySmtpAddress",),
    "s:Body": (
        "m:GetFolder|m:FindFolder|m:CreateFolder|m:SyncFolderItems"
        "|m:GetItem|m:UpdateItem|m:MoveItem|m:DeleteItem",
    ),
    "m:GetFolder": ("m:FolderShape", "m:FolderIds"),
    "m:FindFolder": ("m:FolderShape", "m:IndexedPageFolderView?", "m:Restriction?", "m:ParentFolderIds"),
    "m:CreateFolder": ("m:ParentFolderId", "m:Folders"),
    "m:SyncFolderItems": (
        "m:ItemShape", "m:SyncFolderId", "m:SyncState?", "m:Ignore?", "m:MaxChangesReturned", "m:SyncScope?",
    ),
    "m:GetItem": ("m:ItemShape", "m:ItemIds"),
    "m:UpdateItem": ("m:ItemChanges",),
    "m:MoveItem": ("m:ToFolderId", "m:ItemIds", "m:ReturnNewItemIds?"),
    "m:DeleteItem": ("m:ItemIds",),
    "m:FolderShape": ("t:BaseShape", "t:AdditionalProperties?"),
    "m:ItemShape": ("t:BaseShape", "t:IncludeMimeContent?", "t:AdditionalProperties?"),
    "t:AdditionalProperties": ("t:FieldURI+",),
    "m:FolderIds": (f"{FOLDER_REF}+",),
    "m:ParentFolderIds": (f"{FOLDER_REF}+",),
    "m:ParentFolderId": (FOLDER_REF,),
    "m:SyncFolderId": (FOLDER_REF,),
    "m:ToFolderId": (FOLDER_REF,),
    "m:Folders": ("t:Folder+",),
    "t:Folder": ("t:FolderClass?", "t:DisplayName"),
    "t:DistinguishedFolderId": ("t:Mailbox?",),
    "t:Mailbox": ("t:EmailAddress",),
    "m:Restriction": ("t:IsEqualTo",),
    "t:IsEqualTo": ("t:FieldURI", "t:FieldURIOrConstant"),
    "t:FieldURIOrConstant": ("t:Constant",),
    "m:ItemIds": ("t:ItemId+",),
    "m:ItemChanges": ("t:ItemChange+",),
    "t:ItemChange": ("t:ItemId", "t:Updates"),
    "t:Updates": ("t:SetItemField+",),
    "t:SetItemField": ("t:FieldURI|t:ExtendedFieldURI", "|".join(ITEMS)),
    **dict.fromkeys(ITEMS, ("t:ExtendedProperty?", "t:Categories?", "t:Flag?", "t:IsRead?")),
    "t:ExtendedProperty": ("t:ExtendedFieldURI", "t:Value"),
    "t:Categories": ("t:String+",),
    "t:Flag": ("t:FlagStatus",),
}  # fmt: skip

# element -> attribute -> is it required
ATTRIBUTES: dict[str, dict[str, bool]] = {
    "t:RequestServerVersion": {"Version": True},
    "m:FindFolder": {"Traversal": True},
    "m:IndexedPageFolderView": {"MaxEntriesReturned": False, "Offset": True, "BasePoint": True},
    "m:UpdateItem": {"ConflictResolution": True, "MessageDisposition": True, "SuppressReadReceipts": False},
    "m:DeleteItem": {"DeleteType": True, "SuppressReadReceipts": False},
    "t:FieldURI": {"FieldURI": True},
    "t:ExtendedFieldURI": {"PropertyTag": True, "PropertyType": True},
    "t:FolderId": {"Id": True, "ChangeKey": False},
    "t:DistinguishedFolderId": {"Id": True},
    "t:ItemId": {"Id": True, "ChangeKey": False},
    "t:Constant": {"Value": True},
}

VERSIONS = {"Exchange2013", "Exchange2013_SP1", "Exchange2016"}
FIELDS = {
    "folder:DisplayName", "folder:EffectiveRights", "folder:TotalCount", "item:Size", "item:DateTimeReceived",
    "item:LastModifiedTime", "item:Categories", "item:Flag", "item:InternetMessageHeaders", "message:IsRead",
}  # fmt: skip
DISTINGUISHED = {"msgfolderroot": "", "inbox": "Inbox", "deleteditems": "Deleted Items", "junkemail": "Junk Email"}
RECOVERABLE = "Recoverable Items"


class Refused(Exception):
    """The request breaks the contract."""


class ItemError(Exception):
    """One part of a request cannot be done: the text is the response code."""


@dataclass(slots=True)
class Mail:
    """An item. ``created``, ``changed`` and ``marked`` are instants of the store's own counter."""

    uid: str
    octets: bytes
    received: datetime
    kind: str = "Message"
    seen: bool = False
    flagged: bool = False
    flag_status: int = 0
    """PidTagFlagStatus."""
    categories: tuple[str, ...] = ()
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))
    created: int = 0
    changed: int = 0
    marked: int = 0
    version: int = 1

    @property
    def change_key(self) -> str:
        return base64.b64encode(f"CK{self.version:06}".encode()).decode()


@dataclass(slots=True)
class Place:
    """A folder."""

    uid: str
    name: str
    parent: str
    mails: dict[str, Mail] = field(default_factory=dict)
    left: list[tuple[str, int, int]] = field(default_factory=list)
    """uid, created, left: what is not here any more."""


@dataclass(frozen=True, slots=True)
class Upset:
    """What the server does instead of answering."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/xml; charset=utf-8"),)
    cut_after: int | None = None
    """Octets of the body, promised whole, after which the connection is cut."""
    stall: float = 0.0
    """Seconds before the answer begins."""
    trickles: float = 0.0
    """Seconds between any 64 octets."""
    instead: Callable[[bytes], bytes] | None = None
    """Makes the body of the true answer."""

    @classmethod
    def busy(cls, milliseconds: int | None = None) -> Upset:
        """Throttling as a SOAP fault."""
        return cls(500, fault("ErrorServerBusy", "The server cannot service this request right now.", milliseconds))

    @classmethod
    def page(cls, status: int, body: bytes = b"<html>Sign in</html>", **headers: str) -> Upset:
        """An answer that is none of EWS."""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return cls(status, body, (("Content-Type", "text/html"), *named))


def fault(code: str, text: str, milliseconds: int | None = None) -> bytes:
    """A SOAP fault as Exchange words it."""
    wish = "" if milliseconds is None else f'<t:Value Name="BackOffMilliseconds">{milliseconds}</t:Value>'
    return enveloped(
        f'<s:Fault><faultcode xmlns:a="{TYPES}">a:{code}</faultcode><faultstring '
        f'xml:lang="en-US">{escape(text)}</faultstring>'
        f'<detail><e:ResponseCode xmlns:e="{ERRORS}">{code}</e:ResponseCode><e:Message '
        f'xmlns:e="{ERRORS}">{escape(text)}'
        f"</e:Message><t:MessageXml>{wish}</t:MessageXml></detail></s:Fault>"
    )


def enveloped(body: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{SOAP}" xmlns:m="{MESSAGES}" '
        f'xmlns:t="{TYPES}"><s:Header>'
        '<t:ServerVersionInfo MajorVersion="15" MinorVersion="2" MajorBuildNumber="1544" '
        'MinorBuildNumber="4"/></s:Header>'
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode("utf-8", "surrogateescape")


class Exchange:
    """A context manager; the mailbox of ``owner``, entered by ``user`` with ``password``, by the schemes in
    ``offers``."""

    def __init__(
        self,
        *,
        offers: Sequence[str] = ("Negotiate", "NTLM", "Basic"),
        user: str = "svc",
        domain: str = "EXAMPLE",
        password: str = "secret",
        owner: str = "support@example.com",
        certificate: Path | None = None,
        extended_protection: bool = True,
        port: int = 0,
    ) -> None:
        self.offers = tuple(offers)
        self.user, self.domain, self.password, self.owner = user, domain, password, owner
        self.tokens: set[str] = set()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        """Every operation that was carried out, in order; ``LOGIN`` for a completed handshake."""
        self.refusals = 0
        """Logins that were refused."""
        self.sent = 0
        """Octets of answers that the network took."""
        self.rights = dict.fromkeys(
            ("CreateAssociated", "CreateContents", "CreateHierarchy", "Delete", "Modify", "Read", "ViewPrivateItems"),
            True,
        )
        self.may_impersonate = True
        self.may_be_delegate = True
        self.item_errors: dict[tuple[str, str], str] = {}
        """(operation, item id) -> response code."""
        self.page_size = 512
        self.reorders = False
        self.lies: set[str] = set()
        """What is answered with success and not done: seen, flag, categories, MoveItem, DeleteItem."""
        self.flags_by_status = False
        """An item is flagged by its PidTagFlagStatus alone; item:Flag is taken, and not kept."""
        self.tells_new_ids = True
        """The answer to MoveItem has the new ids, if they are asked for."""
        self.vague = False
        """Say of a missing folder only that something is missing: ErrorItemNotFound, as Exchange may."""
        self.chunk = 1 << 20
        self.size_of: Callable[[Mail], int] = lambda mail: len(mail.octets)
        self.port = port or free_port()
        self._certificate = certificate
        self._extended_protection = extended_protection
        self._numbers = itertools.count(1)
        self._generation = 1
        self._lock = threading.RLock()
        self.stopping = threading.Event()
        self._upsets: list[tuple[str | None, Upset]] = []
        self._connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._places: dict[str, Place] = {}
        self._stack = contextlib.ExitStack()
        for name in (*filter(None, DISTINGUISHED.values()), RECOVERABLE):
            self.add_folder(name)

    # --- life --------------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://localhost:{self.port}/EWS/Exchange.asmx"

    def __enter__(self) -> Exchange:
        users = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "users"
        users.write_text(f"{self.domain}:{self.user}:{self.password}\n")
        self.before = os.environ.get("NTLM_USER_FILE")
        os.environ["NTLM_USER_FILE"] = str(users)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.before is None:
            os.environ.pop("NTLM_USER_FILE", None)
        else:
            os.environ["NTLM_USER_FILE"] = self.before
        self._stack.close()

    def start(self) -> None:
        """Listen, on the same port as before."""
        if self._server is not None:
            return
        self.stopping.clear()
        exchange = self

        class Bound(_Handler):
            server_side = exchange

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 50

            def handle_error(self, request: Any, address: Any) -> None:
                pass  # connections that broke are what the tests are about

        self._server = Server(("127.0.0.1", self.port), Bound)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="exchange", daemon=True
        ).start()

    def stop(self) -> None:
        """Cut every connection and refuse new ones."""
        server, self._server = self._server, None
        self.stopping.set()
        if server is not None:
            server.shutdown()
            server.server_close()
        self.cut()

    def cut(self) -> None:
        """Reset every open connection."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def context(self) -> ssl.SSLContext | None:
        if self._certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        return context

    # --- what tests do -----------------------------------------------------------------------------------------
    def upset(self, operation: str | None, upset: Upset, times: int = 1) -> None:
        """Do this instead of the next ``times`` answers to ``operation`` (None: to whatever comes)."""
        with self._lock:
            self._upsets += [(operation, upset)] * times

    def forget_states(self) -> None:
        """No sync state that was given out so far is known any more."""
        self._generation += 1

    def add_folder(self, name: str, parent: str = "") -> Place:
        with self._lock:
            uid = base64.b64encode(f"folder {next(self._numbers):04} {name}".encode()).decode()
            self._places[uid] = Place(uid, name, parent)
            return self._places[uid]

    def drop_folder(self, name: str) -> None:
        with self._lock:
            del self._places[self.place(name).uid]

    def place(self, name: str | None) -> Place:
        """By display name; INBOX is the Inbox."""
        wanted = "inbox" if name is None else name.lower()
        return next(place for place in self._places.values() if place.name.lower() == wanted)

    def has(self, name: str) -> bool:
        return any(place.name.lower() == name.lower() for place in self._places.values())

    def deliver(
        self,
        octets: bytes,
        folder: str | None = None,
        *,
        seen: bool = False,
        received: datetime | None = None,
        kind: str = "Message",
    ) -> str:
        """Put an item into a folder: its id."""
        with self._lock:
            mail = Mail("", octets, received or datetime.now(UTC), kind=kind, seen=seen)
            return self._put(mail, self.place(folder))

    def mails(self, folder: str | None = None) -> list[Mail]:
        with self._lock:
            return list(self.place(folder).mails.values())

    def remove(self, octets: bytes, folder: str | None = None) -> None:
        with self._lock:
            place = self.place(folder)
            self._take(place, next(uid for uid, mail in place.mails.items() if mail.octets == octets))

    def touch(self, uid: str, **changes: Any) -> None:
        """Somebody else changes an item."""
        with self._lock:
            mail = self._find(uid)[1]
            for name, value in changes.items():
                setattr(mail, name, value)
            self._changed(mail, read_only=set(changes) <= {"seen"})

    # --- the store ---------------------------------------------------------------------------------------------
    def _put(self, mail: Mail, place: Place) -> str:
        number = next(self._numbers)
        # An item that moves gets another id, as in Exchange.
        mail.uid = base64.b64encode(f"item {number:08} in {place.name} of {self.owner}".encode()).decode()
        mail.created, mail.changed, mail.marked = number, 0, 0
        mail.modified = datetime.now(UTC)
        place.mails[mail.uid] = mail
        return mail.uid

    def _take(self, place: Place, uid: str) -> Mail:
        mail = place.mails.pop(uid)
        place.left.append((uid, mail.created, next(self._numbers)))
        return mail

    def _changed(self, mail: Mail, *, read_only: bool) -> None:
        mail.version += 1
        mail.modified = datetime.now(UTC)
        if read_only:
            mail.marked = next(self._numbers)
        else:
            mail.changed = next(self._numbers)

    def _find(self, uid: str) -> tuple[Place, Mail]:
        for place in self._places.values():
            if uid in place.mails:
                return place, place.mails[uid]
        raise ItemError("ErrorItemNotFound")

    # --- requests ----------------------------------------------------------------------------------------------
    def taken_upset(self, operation: str) -> Upset | None:
        with self._lock:
            for number, (wanted, upset) in enumerate(self._upsets):
                if wanted in (None, operation):
                    del self._upsets[number]
                    return upset
        return None

    def operation(self, body: bytes) -> tuple[str, ElementTree.Element, str | None]:
        """The operation, its element and who is impersonated, of a request that keeps the contract."""
        root = ElementTree.fromstring(body)
        _validate(root)
        header, content = root
        version = header[0].attrib["Version"]
        if version not in VERSIONS:
            raise Refused(f"version {version}")
        impersonated = header.findtext(".//{*}PrimarySmtpAddress")
        return _name(content[0])[2:], content[0], impersonated

    def answer(self, operation: str, element: ElementTree.Element, impersonated: str | None) -> bytes:
        with self._lock:
            self.requests.append(operation)
            if impersonated is not None and not self.may_impersonate:
                return fault(
                    "ErrorImpersonateUserDenied",
                    "The account does not have permission to impersonate the requested user.",
                )
            if impersonated not in (None, self.owner):
                return fault("ErrorNonExistentMailbox", "No mailbox with such guid.")
            parts = getattr(self, f"_{operation}")(element)
            replies = "".join(
                f'<m:{operation}ResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode>{part}'
                f"</m:{operation}ResponseMessage>"
                if not isinstance(part, ItemError)
                else f'<m:{operation}ResponseMessage ResponseClass="Error"><m:MessageText>It cannot be '
                f"done.</m:MessageText><m:ResponseCode>{part}</m:ResponseCode><m:DescriptiveLinkKey>0</m:DescriptiveLinkKey></m:{operation}ResponseMessage>"
                for part in parts
            )
            return enveloped(
                f"<m:{operation}Response><m:ResponseMessages>{replies}</m:ResponseMessages></m:{operation}Response>"
            )

    def _each(self, operation: str, elements: Sequence[ElementTree.Element], work: Callable[[Any], str]) -> list[Any]:
        answers: list[Any] = []
        for element in elements:
            uid = element.attrib.get("Id") or element[0].attrib.get("Id", "")
            try:
                if (code := self.item_errors.get((operation, uid))) is not None:
                    raise ItemError(code)
                answers.append(work(element))
            except ItemError as error:
                answers.append(error)
        return answers

    def _folder(self, element: ElementTree.Element) -> str:
        """The id of the folder that an element names; "" is the root."""
        uid = element.attrib["Id"]
        if _name(element) == "t:FolderId":
            if uid not in self._places and uid != "root":
                raise ItemError("ErrorItemNotFound" if self.vague else "ErrorFolderNotFound")
            return "" if uid == "root" else uid
        whose = element.findtext(".//{*}EmailAddress")
        if whose is not None:
            if whose != self.owner:
                raise ItemError("ErrorNonExistentMailbox")
            if not self.may_be_delegate:
                raise ItemError("ErrorAccessDenied")
        if uid not in DISTINGUISHED:
            raise Refused(f"distinguished folder {uid}")
        return "" if uid == "msgfolderroot" else self.place(DISTINGUISHED[uid]).uid

    def _folder_xml(self, uid: str, fields: set[str]) -> str:
        place = self._places.get(uid)
        rights = "".join(f"<t:{name}>{str(has).lower()}</t:{name}>" for name, has in self.rights.items())
        return (
            f"<t:Folder><t:FolderId Id={quoteattr(uid or 'root')} ChangeKey=\"AQAAAA==\"/>"
            + (f"<t:DisplayName>{escape(place.name if place else 'Top')}</t:DisplayName>"
            if "folder:DisplayName" in fields else "")
            + (f"<t:EffectiveRights>{rights}</t:EffectiveRights>" if "folder:EffectiveRights" in fields else "")
            + "</t:Folder>"
        )  # fmt: skip

    def _GetFolder(self, element: ElementTree.Element) -> list[Any]:
        fields = _fields(element)
        wrap = lambda one: f"<m:Folders>{self._folder_xml(self._folder(one), fields)}</m:Folders>"  # noqa: E731
        return self._each("GetFolder", list(element[1]), wrap)

    def _FindFolder(self, element: ElementTree.Element) -> list[Any]:
        if element.attrib["Traversal"] != "Shallow":
            raise Refused("traversal")
        constant = element.find(".//{*}Constant")
        wanted = None if constant is None else constant.attrib["Value"].lower()
        fields = _fields(element)

        def find(parent: ElementTree.Element) -> str:
            uid = self._folder(parent)
            found = [one for one in self._places.values() if one.parent == uid and wanted in (None, one.name.lower())]
            xml = "".join(self._folder_xml(one.uid, fields) for one in found)
            return (
                f'<m:RootFolder TotalItemsInView="{len(found)}" IncludesLastItemInRange="true">'
                f"<t:Folders>{xml}</t:Folders></m:RootFolder>"
            )

        return self._each("FindFolder", list(element.find("{*}ParentFolderIds") or ()), find)

    def _CreateFolder(self, element: ElementTree.Element) -> list[Any]:
        def create(folder: ElementTree.Element) -> str:
            if not self.rights["CreateHierarchy"]:
                raise ItemError("ErrorAccessDenied")
            parent, name = self._folder(element[0][0]), folder.findtext("{*}DisplayName") or ""
            if any(one.parent == parent and one.name.lower() == name.lower() for one in self._places.values()):
                raise ItemError("ErrorFolderExists")
            return f"<m:Folders>{self._folder_xml(self.add_folder(name, parent).uid, set())}</m:Folders>"

        return self._each("CreateFolder", list(element[1]), create)

    # --- items -------------------------------------------------------------------------------------------------
    def _item_xml(self, mail: Mail, fields: set[str], *, content: bool = False) -> str:
        parts = (
            [f'<t:MimeContent CharacterSet="UTF-8">{base64.b64encode(mail.octets).decode()}</t:MimeContent>']
            if content
            else []
        )
        parts.append(f'<t:ItemId Id={quoteattr(mail.uid)} ChangeKey="{mail.change_key}"/>')
        if "item:DateTimeReceived" in fields:
            parts.append(f"<t:DateTimeReceived>{_utc(mail.received)}</t:DateTimeReceived>")
        if "item:Size" in fields:
            parts.append(f"<t:Size>{self.size_of(mail)}</t:Size>")
        if "item:Categories" in fields and mail.categories:
            names = "".join(f"<t:String>{_text(one)}</t:String>" for one in mail.categories)
            parts.append(f"<t:Categories>{names}</t:Categories>")
        if "item:LastModifiedTime" in fields:
            parts.append(f"<t:LastModifiedTime>{_utc(mail.modified)}</t:LastModifiedTime>")
        if "item:Flag" in fields:
            flagged = mail.flag_status == 2 if self.flags_by_status else mail.flagged
            status = "Flagged" if flagged else "NotFlagged"
            parts.append(f"<t:Flag><t:FlagStatus>{status}</t:FlagStatus></t:Flag>")
        if "message:IsRead" in fields and mail.kind not in ("Item", "Contact"):
            parts.append(f"<t:IsRead>{str(mail.seen).lower()}</t:IsRead>")
        return f"<t:{mail.kind}>{''.join(parts)}</t:{mail.kind}>"

    def _SyncFolderItems(self, element: ElementTree.Element) -> list[Any]:
        fields = _fields(element)
        most = int(element.findtext("{*}MaxChangesReturned") or "0")
        if not 1 <= most <= 512:
            raise Refused("MaxChangesReturned")
        try:
            place = self._places[self._folder(element.find("{*}SyncFolderId")[0])]  # type: ignore[index]
            since = self._since(element.findtext("{*}SyncState"), place)
        except ItemError as error:
            return [error]
        changes: list[tuple[int, str]] = []
        for mail in place.mails.values():
            if mail.created > since:
                changes.append((mail.created, f"<t:Create>{self._item_xml(mail, fields)}</t:Create>"))
            elif mail.changed > since:
                changes.append((mail.changed, f"<t:Update>{self._item_xml(mail, fields)}</t:Update>"))
            elif mail.marked > since:
                item = f'<t:ItemId Id={quoteattr(mail.uid)} ChangeKey="{mail.change_key}"/>'
                xml = f"<t:ReadFlagChange>{item}<t:IsRead>{str(mail.seen).lower()}</t:IsRead></t:ReadFlagChange>"
                changes.append((mail.marked, xml))
        for uid, created, left in place.left:
            if created <= since < left:
                changes.append((left, f"<t:Delete><t:ItemId Id={quoteattr(uid)}/></t:Delete>"))
        changes.sort()
        page = changes[: min(most, self.page_size)]
        reached = page[-1][0] if page else since
        state = base64.b64encode(f"{self._generation}|{place.uid}|{reached}".encode()).decode()
        return [
            f"<m:SyncState>{state}</m:SyncState>"
            f"<m:IncludesLastItemInRange>{str(len(page) == len(changes)).lower()}</m:IncludesLastItemInRange>"
            f"<m:Changes>{''.join(xml for _, xml in page)}</m:Changes>"
        ]

    def _since(self, state: str | None, place: Place) -> int:
        if not state:
            return 0
        try:
            generation, uid, since = base64.b64decode(state, validate=True).decode().split("|")
        except ValueError:
            raise ItemError("ErrorInvalidSyncStateData") from None
        if int(generation) != self._generation or uid != place.uid:
            raise ItemError("ErrorInvalidSyncStateData")
        return int(since)

    def _GetItem(self, element: ElementTree.Element) -> list[Any]:
        fields = _fields(element)
        content = element[0].findtext("{*}IncludeMimeContent") == "true"
        wrap = lambda one: (  # noqa: E731
            f"<m:Items>{self._item_xml(self._find(one.attrib['Id'])[1], fields, content=content)}</m:Items>"
        )
        answers = self._each("GetItem", list(element[1]), wrap)
        return answers[::-1] if self.reorders else answers

    def _UpdateItem(self, element: ElementTree.Element) -> list[Any]:
        if element.attrib["ConflictResolution"] != "AlwaysOverwrite":
            raise Refused("only AlwaysOverwrite is implemented")

        def update(change: ElementTree.Element) -> str:
            _, mail = self._find(change[0].attrib["Id"])
            if not change[0].attrib.get("ChangeKey"):
                raise ItemError("ErrorChangeKeyRequiredForWriteOperations")
            if not self.rights["Modify"]:
                raise ItemError("ErrorAccessDenied")
            for one in change[1]:
                uri, item = one[0].attrib.get("FieldURI", ""), one[1]
                if _name(item) != f"t:{mail.kind}":
                    raise ItemError("ErrorInvalidPropertySet")
                if len(item) != 1:
                    raise ItemError("ErrorIncorrectUpdatePropertyCount")
                if {"message:IsRead": "seen", "item:Categories": "categories"}.get(uri, "flag") in self.lies:
                    continue
                if _name(one[0]) == "t:ExtendedFieldURI":
                    if one[0].attrib != item[0][0].attrib or one[0].attrib["PropertyTag"] != "0x1090":
                        raise ItemError("ErrorUpdatePropertyMismatch")
                    mail.flag_status = int(item[0][1].text or "")
                elif uri == "message:IsRead" and _name(item[0]) == "t:IsRead" and mail.kind != "Item":
                    mail.seen = item[0].text == "true"
                elif uri == "item:Flag" and _name(item[0]) == "t:Flag":
                    mail.flagged = item[0][0].text == "Flagged"
                elif uri == "item:Categories" and _name(item[0]) == "t:Categories":
                    mail.categories = tuple(string.text or "" for string in item[0])
                else:
                    raise ItemError("ErrorUpdatePropertyMismatch")
            self._changed(mail, read_only=False)
            return (
                f"<m:Items><t:{mail.kind}><t:ItemId Id={quoteattr(mail.uid)} "
                f'ChangeKey="{mail.change_key}"/></t:{mail.kind}>'
                "</m:Items><m:ConflictResults><t:Count>0</t:Count></m:ConflictResults>"
            )

        return self._each("UpdateItem", list(element[0]), update)

    def _MoveItem(self, element: ElementTree.Element) -> list[Any]:
        told = element.findtext("{*}ReturnNewItemIds") == "true"

        def move(item: ElementTree.Element) -> str:
            try:
                target = self._places[self._folder(element[0][0])]
            except ItemError:
                raise ItemError("ErrorItemNotFound" if self.vague else "ErrorToFolderNotFound") from None
            place, _ = self._find(item.attrib["Id"])
            if not self.rights["Delete"]:
                raise ItemError("ErrorMoveCopyFailed")
            if "MoveItem" not in self.lies:
                mail = self._take(place, item.attrib["Id"])
                self._put(mail, target)
                if told and self.tells_new_ids:
                    return f"<m:Items>{self._item_xml(mail, set())}</m:Items>"
            return "<m:Items/>"

        return self._each("MoveItem", list(element[1]), move)

    def _DeleteItem(self, element: ElementTree.Element) -> list[Any]:
        how = element.attrib["DeleteType"]

        def delete(item: ElementTree.Element) -> str:
            place, _ = self._find(item.attrib["Id"])
            if how == "MoveToDeletedItems" or not self.rights["Delete"]:
                raise ItemError("ErrorCannotDeleteObject")
            if "DeleteItem" in self.lies:
                return ""
            mail = self._take(place, item.attrib["Id"])
            if how == "SoftDelete":
                self._put(mail, self.place(RECOVERABLE))
            return ""

        return self._each("DeleteItem", list(element[0]), delete)


class _Handler(Handler):
    """One connection."""

    server_side: Exchange
    timeout = 60

    def setup(self) -> None:
        context = self.server_side.context()
        if context is not None:
            self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()
        self.logged_in = False
        self.handshake: Any = None
        with self.server_side._lock:
            self.server_side._connections.add(self.request)

    def finish(self) -> None:
        with self.server_side._lock:
            self.server_side._connections.discard(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self.complain("a GET")

    def do_POST(self) -> None:
        exchange = self.server_side
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.complain("no Content-Length")
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # cut on the way, which is nobody's fault
            self.close_connection = True
            return
        if self.path != "/EWS/Exchange.asmx":
            self.send(Upset.page(404))
            return
        if not self.authorized():
            return
        kind = self.headers.get("Content-Type", "").replace(" ", "").lower()
        for wrong, complaint in (
            (kind != "text/xml;charset=utf-8", f"Content-Type {kind}"),
            (self.headers.get("Accept") != "text/xml", "no Accept"),
            (not self.headers.get("User-Agent"), "no User-Agent"),
            (not self.headers.get("Host"), "no Host"),
            (self.headers.get("Accept-Encoding", "identity") != "identity", "a coding is asked for"),
        ):
            if wrong:
                self.complain(complaint)
                return
        try:
            operation, element, impersonated = exchange.operation(body)
        except (Refused, ElementTree.ParseError) as error:
            self.complain(str(error))
            return
        upset = exchange.taken_upset(operation)
        if upset is not None and upset.instead is None:
            self.send(upset)
            return
        try:
            answer = exchange.answer(operation, element, impersonated)
        except Refused as error:
            self.complain(str(error))
            return
        if upset is not None and upset.instead is not None:
            answer = upset.instead(answer)
        self.send(Upset(500 if b"<s:Fault>" in answer else 200, answer))

    def complain(self, what: str) -> None:
        self.server_side.complaints.append(what)
        self.send(Upset(500, fault("ErrorSchemaValidation", f"The request failed schema validation: {what}")))

    def send(self, upset: Upset) -> None:
        if upset.stall:
            self.server_side.stopping.wait(upset.stall)
        self.send_response(upset.status)
        for name, value in upset.headers:
            self.send_header(name, value)
        if upset.cut_after is not None:
            self.send_header("Content-Length", str(len(upset.body)))
            self.end_headers()
            self.wfile.write(upset.body[: upset.cut_after])
            self.wfile.flush()
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chunk = 64 if upset.trickles else self.server_side.chunk
        for begin in range(0, len(upset.body), chunk):
            self.server_side.stopping.wait(upset.trickles)
            piece = upset.body[begin : begin + chunk]
            self.wfile.write(b"%X\r\n%s\r\n" % (len(piece), piece))
            self.server_side.sent += len(piece)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    # --- logging in --------------------------------------------------------------------------------------------
    def authorized(self) -> bool:
        """True if the request may pass; otherwise it has been answered."""
        exchange = self.server_side
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if not scheme and self.logged_in:
            return True
        if scheme in exchange.offers:
            if scheme == "Basic" and self.basic(value):
                return True
            if scheme == "Bearer" and value in exchange.tokens:
                return True
            if scheme in ("NTLM", "Negotiate"):
                return self.ntlm(scheme, value)
        if scheme:
            exchange.refusals += 1
        self.refuse(exchange.offers)
        return False

    def basic(self, value: str) -> bool:
        exchange = self.server_side
        name, _, password = base64.b64decode(value).decode().partition(":")
        known = (f"{exchange.domain}\\{exchange.user}", f"{exchange.user}@{exchange.domain.lower()}.com")
        return name in known and password == exchange.password

    def ntlm(self, scheme: str, value: str) -> bool:
        import spnego
        from spnego.channel_bindings import GssChannelBindings
        from spnego.exceptions import SpnegoError

        exchange = self.server_side
        if self.handshake is None:
            bindings = None
            if exchange._certificate is not None and exchange._extended_protection:
                pem, end, _ = exchange._certificate.read_text().partition("-----END CERTIFICATE-----")
                certificate = ssl.PEM_cert_to_DER_cert(pem + end)
                bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + sha256(certificate).digest())
            self.handshake = spnego.server(
                protocol=scheme.lower(), hostname="localhost", service="http", channel_bindings=bindings
            )
        try:
            token = self.handshake.step(base64.b64decode(value))
        except SpnegoError:
            self.handshake = None
            exchange.refusals += 1
            self.refuse(exchange.offers)
            return False
        if self.handshake.complete:
            self.handshake = None
            self.logged_in = True
            exchange.requests.append("LOGIN")
            return True
        self.refuse([f"{scheme} {base64.b64encode(token).decode()}"])
        return False

    def refuse(self, challenges: Sequence[str]) -> None:
        shown = [
            f'{one} realm="{self.server_side.domain}"' if one in ("Basic", "Bearer") else one for one in challenges
        ]
        headers = tuple(("WWW-Authenticate", one) for one in shown)
        self.send(Upset(401, b"<html>401</html>", (("Content-Type", "text/html"), *headers)))


# --- the contract ----------------------------------------------------------------------------------------------
def _name(element: ElementTree.Element) -> str:
    namespace, _, local = element.tag.removeprefix("{").partition("}")
    return f"{PREFIX.get(namespace, '?')}:{local}"


def _validate(element: ElementTree.Element) -> None:
    """Raise Refused for what the contract does not have here."""
    name = _name(element)
    known = ATTRIBUTES.get(name, {})
    for attribute in element.attrib:
        if attribute not in known:
            raise Refused(f"{name} has no attribute {attribute}")
    for attribute, required in known.items():
        if required and attribute not in element.attrib:
            raise Refused(f"{name} lacks {attribute}")
    if name == "t:FieldURI" and element.attrib["FieldURI"] not in FIELDS:
        raise Refused(f"no property {element.attrib['FieldURI']}")
    children = [_name(child) for child in element]
    left = list(children)
    for rule in CHILDREN.get(name, ()):
        bare = rule.rstrip("?*+")
        taken = 0
        while left and left[0] in bare.split("|") and (taken == 0 or rule[-1] in "*+"):
            left.pop(0)
            taken += 1
        if not taken and rule[-1] not in "?*":
            raise Refused(f"{name} lacks {bare}")
    if left:
        raise Refused(f"{name} has no {left[0]} here")
    for child in element:
        _validate(child)


def _fields(element: ElementTree.Element) -> set[str]:
    return {one.attrib["FieldURI"] for one in element[0].iter(f"{{{TYPES}}}FieldURI")}


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(text: str) -> str:
    """Text as Exchange writes it: control characters as references that XML does not have."""
    return "".join(f"&#x{ord(one):X};" if ord(one) < 32 else escape(one) for one in text)


def seen_in(mails: Sequence[Mail]) -> Counter[bytes]:
    """The octets of those that are marked as read."""
    return Counter(mail.octets for mail in mails if mail.seen)


@contextlib.contextmanager
def exchange(**settings: Any) -> Iterator[Exchange]:
    """A server that nobody gave cause for complaint."""
    with Exchange(**settings) as server:
        yield server
        assert server.complaints == []
