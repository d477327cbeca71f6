"""The Gmail API as its published contract has it (REST reference, version 1), for one mailbox: strict, and able to
misbehave.

What the contract does not know is refused and noted in ``violations``: an unknown or repeated option, a missing
header, a body that does not belong there. It also is the token endpoint. Everything runs in threads, so that it
serves another process too.

    with Gmail() as gmail:
        gmail.deliver(b"Subject: hello\\r\\n\\r\\n")
        GmailConfig(type="gmail", user=gmail.user, url=gmail.url, auth=gmail.auth)
"""

from __future__ import annotations

import base64
import contextlib
import email
import itertools
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import getaddresses
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from servers.ports import free_port
from servers.requests import Handler

SYSTEM = ("INBOX", "SPAM", "TRASH", "UNREAD", "STARRED", "IMPORTANT", "SENT", "DRAFT", "CATEGORY_UPDATES")
HIDDEN = {"SPAM", "TRASH"}
FIXED = {"SENT", "DRAFT"}
READS = {"https://www.googleapis.com/auth/gmail.modify", "https://www.googleapis.com/auth/gmail.readonly"}
INSERT = "https://www.googleapis.com/auth/gmail.insert"
MODIFY = "https://www.googleapis.com/auth/gmail.modify"

# method, path -> units, options (those with a star may be repeated)
CONTRACT: dict[tuple[str, str], tuple[int, set[str]]] = {
    ("GET", "/profile"): (1, set()),
    ("GET", "/labels"): (1, set()),
    ("POST", "/labels"): (5, set()),
    ("GET", "/messages"): (5, {"labelIds*", "q", "pageToken", "maxResults", "includeSpamTrash"}),
    ("GET", "/messages/ID"): (5, {"format", "metadataHeaders*"}),
    ("POST", "/messages/import"): (25, {"uploadType", "internalDateSource", "neverMarkSpam", "processForCalendar"}),
    ("POST", "/messages/ID/modify"): (5, set()),
    ("POST", "/messages/batchModify"): (50, set()),
    ("POST", "/messages/send"): (100, {"uploadType"}),
    ("POST", "/drafts"): (10, {"uploadType"}),
    ("GET", "/drafts/ID"): (5, {"format"}),
    ("DELETE", "/drafts/ID"): (10, set()),
    ("POST", "/drafts/send"): (100, set()),
    ("GET", "/settings/sendAs"): (1, set()),
    ("GET", "/history"): (2, {"startHistoryId", "labelId", "historyTypes*", "maxResults", "pageToken"}),
}
UPLOADS = {("POST", f"/{one}") for one in ("messages/import", "messages/send", "drafts")}
HISTORY_TYPES = {
    "messageAdded": "messagesAdded", "labelAdded": "labelsAdded", "labelRemoved": "labelsRemoved",
    "messageDeleted": "messagesDeleted",
}  # fmt: skip
KNOWN_FIELDS = {
    "id", "name", "labels", "messages", "nextPageToken", "resultSizeEstimate", "labelIds", "internalDate", "raw",
    "emailAddress",
    "historyId", "history", "messagesAdded", "labelsAdded", "labelsRemoved", "messagesDeleted", "message",
    "sizeEstimate", "threadId", "sendAs", "payload", "headers", "value",
}  # fmt: skip


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str, *, contract: bool = False) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.contract = status, reason, message, contract


def error(status: int, reason: str, message: str) -> bytes:
    """An error's body, as Google words it."""
    status_word = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        409: "ABORTED",
    }
    body: dict[str, Any] = {
        "code": status,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
    }
    if status in status_word:
        body["status"] = status_word[status]
    return json.dumps({"error": body}, indent=2).encode()


@dataclass(slots=True)
class Mail:
    """One message. ``labels`` are ids."""

    uid: str
    octets: bytes
    labels: set[str]
    received: datetime


@dataclass(frozen=True, slots=True)
class Upset:
    """What the server does instead of answering, or to its answer."""

    status: int = 0
    """0: the true answer."""
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json; charset=UTF-8"),)
    stall: float = 0.0
    """Seconds before the answer begins."""
    cut_after: int | None = None
    """Octets of the body, promised whole, after which the connection is cut."""
    endless: bytes = b""
    """Sent without end after the body."""
    instead: Callable[[bytes], bytes] | None = None
    """Makes the body of the true answer."""

    @classmethod
    def throttled(
        cls, status: int = 429, reason: str = "rateLimitExceeded", after: str = "", words: str = "Rate Limit Exceeded"
    ) -> Upset:
        """Too many requests."""
        wish = (("Retry-After", after),) if after else ()
        return cls(status, error(status, reason, words), (*cls.headers_of("application/json"), *wish))

    @classmethod
    def refusal(cls, status: int, reason: str, message: str) -> Upset:
        return cls(status, error(status, reason, message))

    @staticmethod
    def headers_of(kind: str) -> tuple[tuple[str, str], ...]:
        return (("Content-Type", kind),)


@dataclass(slots=True)
class Record:
    """One change of the history."""

    number: int
    kind: str
    uid: str
    changed: tuple[str, ...] = ()


@dataclass(slots=True)
class Asked:
    """One request that was taken as it should be."""

    at: float
    method: str
    path: str
    units: int
    query: list[tuple[str, str]] = field(default_factory=list)


class Gmail:
    """A context manager; one mailbox, on a free port of 127.0.0.1."""

    user = "support@example.com"

    def __init__(self) -> None:
        self.mails: dict[str, Mail] = {}
        self.label_ids: dict[str, str] = {name: name for name in SYSTEM}
        """name -> id."""
        self.records: list[Record] = []
        self.oldest = 0
        """History ids before this one are not known any more."""
        self.number = 1_000
        self.page_size = 500
        self.reorders = False
        self.escapes = False
        """Write = as an escape."""
        self.batch_knows_missing = False
        """batchModify answers 404 if one of the messages is gone, and changes nothing."""
        self.lies = False
        """Changes of labels are answered with success, and not made."""
        self.history_lags = False
        """Changes of labels are not in the history yet."""
        self.drafts: dict[str, str] = {}
        """id -> id of the message."""
        self.posted: list[bytes] = []
        """What was sent, as it left."""
        self.renames = False
        """What is sent gets a Message-ID of the service's own."""
        self.keeps_sent = True
        """What was sent stays among the sent mail."""
        self.sends_as = [{"sendAsEmail": self.user, "isPrimary": True}]
        self.scope = MODIFY
        self.violations: list[str] = []
        self.asked: list[Asked] = []
        self.tokens: list[str] = []
        self.token_lifetime = 3600
        self.most_at_once = 0
        self.sent = 0
        """Octets of bodies that were sent."""
        self._upsets: list[tuple[re.Pattern[str], Upset]] = []
        self._lock = threading.RLock()
        self.stopping = threading.Event()
        self._numbers = itertools.count(0x18F0_0000_0000_0001)
        self._running = 0
        self._connections: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None
        self.port = free_port()

    # --- life --------------------------------------------------------------------------------------------------
    def __enter__(self) -> Gmail:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before."""
        gmail = self
        self.stopping.clear()

        class Bound(_Handler):
            server_of = gmail

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Bound)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close everything."""
        self.stopping.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        for one in list(self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> dict[str, Any]:
        """The ``auth`` block of a client."""
        return {
            "type": "oauth2", "provider": "google", "grant": "refresh_token", "client_id": "app.example",
            "client_secret": "app-secret",
            "refresh_token": "refresh-me", "token_url": f"{self.url}/token",
        }  # fmt: skip

    # --- what a person and the world do ------------------------------------------------------------------------
    def deliver(
        self, octets: bytes, label: str = "INBOX", *, seen: bool = False, received: datetime | None = None
    ) -> str:
        """A message comes under a label, which exists."""
        with self._lock:
            uid = f"{next(self._numbers):016x}"
            labels = {self.label_ids[label], *(() if seen else ("UNREAD",))}
            self.mails[uid] = Mail(uid, octets, labels, received or datetime.now(UTC))
            self._record("messageAdded", uid, tuple(labels))
            return uid

    def relabel(self, uid: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Somebody changes the labels (ids) of a message."""
        with self._lock:
            mail = self.mails[uid]
            added, removed = set(add) - mail.labels, set(remove) & mail.labels
            mail.labels = (mail.labels | added) - removed
            if added and not self.history_lags:
                self._record("labelAdded", uid, tuple(added))
            if removed and not self.history_lags:
                self._record("labelRemoved", uid, tuple(removed))

    def remove(self, uid: str) -> None:
        """Somebody deletes a message for good."""
        with self._lock:
            mail = self.mails.pop(uid)
            self._record("messageDeleted", uid, tuple(mail.labels))

    def add_label(self, name: str) -> str:
        with self._lock:
            return self.label_ids.setdefault(name, f"Label_{len(self.label_ids)}_{secrets.randbelow(10**9)}")

    def drop_label(self, name: str) -> None:
        """Somebody deletes a label."""
        with self._lock:
            uid = self.label_ids.pop(name)
            for mail in self.mails.values():
                mail.labels.discard(uid)

    def under(self, name: str) -> list[Mail]:
        """The messages that Gmail shows under a label."""
        with self._lock:
            uid = self.label_ids.get(name, "")
            return [
                one for one in self.mails.values() if uid in one.labels and (uid in HIDDEN or not HIDDEN & one.labels)
            ]

    def expire_history(self) -> None:
        """What was until now is no longer known."""
        with self._lock:
            self.number += 1
            self.oldest = self.number

    def upset(self, path: str, *upsets: Upset) -> None:
        """The next requests whose ``METHOD /path`` matches are dealt with like this, one each."""
        self._upsets += [(re.compile(path), one) for one in upsets]

    def calm(self) -> None:
        self._upsets.clear()

    def count(self, path: str) -> int:
        """How many requests were made."""
        return sum(1 for one in self.asked if re.fullmatch(path, f"{one.method} {one.path}"))

    @property
    def units(self) -> int:
        return sum(one.units for one in self.asked)

    def _record(self, kind: str, uid: str, changed: tuple[str, ...]) -> None:
        self.number += 7
        self.records.append(Record(self.number, kind, uid, changed))

    # --- answers -----------------------------------------------------------------------------------------------
    def give_token(self, form: dict[str, str]) -> dict[str, Any]:
        wanted = {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-me",
            "client_id": "app.example",
            "client_secret": "app-secret",
        }
        if any(form.get(name) != value for name, value in wanted.items()):
            raise Refused(400, "invalid_grant", "Bad Request")
        self.tokens.append(f"ya29.{secrets.token_urlsafe(60)}")
        return {
            "access_token": self.tokens[-1],
            "token_type": "Bearer",
            "expires_in": self.token_lifetime,
            "scope": self.scope,
        }

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Any:
        """The JSON of an answer; None is an empty one."""
        parts = urlsplit(target)
        whole = parts.path.removeprefix("/upload")
        mailbox = next((one for one in (self.user, "me") if whole.startswith(f"/gmail/v1/users/{one}/")), None)
        if mailbox is None:
            raise Refused(404, "notFound", "Not Found", contract=True)
        path = whole.removeprefix(f"/gmail/v1/users/{mailbox}")
        general = re.sub(r"^/messages/(?!batchModify$|import$|send$)[^/]+", "/messages/ID", path)
        general = re.sub(r"^/drafts/(?!send$)[^/]+", "/drafts/ID", general)
        if (whole != parts.path) is not ((method, general) in UPLOADS):
            raise Refused(404, "notFound", "only uploads go there", contract=True)
        if (method, general) not in CONTRACT:
            raise Refused(404, "notFound", f"no method {method} {general}", contract=True)
        units, options = CONTRACT[method, general]
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        self._check(query, options | {"fields"}, headers, method, body)
        with self._lock:
            self.asked.append(Asked(time.monotonic(), method, path, units, query))
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Refused(401, "authError", "Invalid Credentials")
        granted = set(self.scope.split())
        wanted = {MODIFY, INSERT} if general == "/messages/import" else {MODIFY} if method == "POST" else READS
        if not granted & wanted:
            raise Refused(403, "insufficientPermissions", "Request had insufficient authentication scopes.")
        single = {name: value for name, value in query if f"{name}*" not in options}
        with self._lock:
            match method, general:
                case "GET", "/profile":
                    found: Any = {
                        "emailAddress": self.user, "messagesTotal": len(self.mails), "threadsTotal": 1,
                        "historyId": str(self.number)
                    }  # fmt: skip
                case "GET", "/labels":
                    found = {
                        "labels": [{"id": uid, "name": name, "type": "user"} for name, uid in self.label_ids.items()]
                    }
                case "POST", "/labels":
                    found = self._create(json.loads(body))
                case "GET", "/messages":
                    found = self._list(single, [value for name, value in query if name == "labelIds"])
                case "GET", "/messages/ID":
                    wanted = {value.lower() for name, value in query if name == "metadataHeaders"}
                    found = self._get(path.split("/")[2], single.get("format", "full"), wanted)
                case "POST", "/messages/import":
                    found = self._import(single, headers["content-type"], body)
                case "POST", "/messages/send":
                    found = self._sent(self._uploaded(single, headers["content-type"], body)[0])
                case "POST", "/drafts":
                    octets = self._uploaded(single, headers["content-type"], body)[0]
                    uid, draft = self._put(octets, {"DRAFT"}), f"r{next(self._numbers)}"
                    self.drafts[draft] = uid
                    found = {"id": draft, "message": {"id": uid, "threadId": uid}}
                case (("GET" | "DELETE"), "/drafts/ID"):
                    draft = path.split("/")[2]
                    if draft not in self.drafts:
                        raise Refused(404, "notFound", "Requested entity was not found.")
                    found = {"id": draft, "message": {"id": self.drafts[draft]}} if method == "GET" else None
                    if method == "DELETE":
                        del self.mails[self.drafts.pop(draft)]
                case "POST", "/drafts/send":
                    draft = json.loads(body)["id"]
                    if draft not in self.drafts:
                        raise Refused(404, "notFound", "Requested entity was not found.")
                    found = self._sent(self.mails[self.drafts[draft]].octets)
                    del self.mails[self.drafts.pop(draft)]
                case "GET", "/settings/sendAs":
                    found = {"sendAs": self.sends_as}
                case "POST", "/messages/batchModify":
                    found = self._batch(json.loads(body))
                case "POST", _:
                    found = self._modify(path.split("/")[2], json.loads(body))
                case _:
                    found = self._history(single, [value for name, value in query if name == "historyTypes"])
        return _masked(found, single["fields"]) if "fields" in single and found is not None else found

    def _check(self, query: list[tuple[str, str]], options: set[str], headers: Any, method: str, body: bytes) -> None:
        names = [name for name, _ in query]
        for name in names:
            if f"{name}*" not in options and (name not in options or names.count(name) > 1):
                raise Refused(
                    400, "invalidParameter", f"Invalid JSON payload received. Unknown name {name}", contract=True
                )
        if not headers.get("authorization", "").startswith("Bearer "):
            raise Refused(401, "required", "Login Required.", contract=True)
        if not headers.get("host") or not headers.get("user-agent"):
            raise Refused(400, "badRequest", "a header is missing", contract=True)
        kind = "multipart/related" if ("uploadType", "multipart") in query else "application/json"
        if method == "POST" and headers.get("content-type", "").partition(";")[0] != kind:
            raise Refused(400, "parseError", "the body is no JSON", contract=True)
        if method == "GET" and body:
            raise Refused(400, "badRequest", "a GET has no body", contract=True)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        if set(body) - {"name", "labelListVisibility", "messageListVisibility", "color"} or not body.get("name"):
            raise Refused(400, "invalidArgument", "Invalid label", contract=True)
        if body["labelListVisibility"] not in ("labelShow", "labelHide") or body["messageListVisibility"] not in (
            "show",
            "hide",
        ):
            raise Refused(400, "invalidArgument", "Invalid visibility", contract=True)
        if body["name"].casefold() in {name.casefold() for name in self.label_ids}:
            raise Refused(409, "aborted", "Label name exists or conflicts")
        return {"id": self.add_label(body["name"]), "name": body["name"]}

    def _list(self, query: dict[str, str], labels: list[str]) -> dict[str, Any]:
        for label in labels:
            if label not in self.label_ids.values():
                raise Refused(400, "invalidArgument", f"Invalid label: {label}")
        hidden = query.get("includeSpamTrash") == "true"
        after = 0.0
        bearing = ""
        if told := re.fullmatch(r"rfc822msgid:(\S+)", query.get("q", "")):
            bearing = told[1]
        elif "q" in query:
            if not (found := re.fullmatch(r"after:(\d+)", query["q"])):
                raise Refused(400, "invalidArgument", "a search that this server does not know", contract=True)
            after = float(found[1])
        uids = [
            one.uid
            for one in self.mails.values()
            if set(labels) <= one.labels
            and (hidden or not HIDDEN & one.labels)
            and one.received.timestamp() > after
            and f"<{bearing or '@'}>".replace("<@>", "").encode() in one.octets
        ]
        uids.sort(reverse=not self.reorders)
        page, token = self._page(uids, query)
        found = {"messages": [{"id": uid, "threadId": uid} for uid in page], "resultSizeEstimate": len(uids)}
        return {name: value for name, value in [*found.items(), ("nextPageToken", token)] if value}

    def _page(self, items: list[Any], query: dict[str, str]) -> tuple[list[Any], str]:
        wanted = int(query.get("maxResults", "100"))
        if not 0 < wanted <= 500:
            raise Refused(400, "invalidArgument", "Invalid maxResults", contract=True)
        begin = int(query.get("pageToken", "0"))
        end = begin + min(wanted, self.page_size)
        return items[begin:end], str(end) if end < len(items) else ""

    def _history(self, query: dict[str, str], kinds: list[str]) -> dict[str, Any]:
        if not query.get("startHistoryId", "").isdigit() or set(kinds) - set(HISTORY_TYPES):
            raise Refused(400, "invalidArgument", "Missing/invalid parameter: startHistoryId", contract=True)
        begin = int(query["startHistoryId"])
        if begin < self.oldest or query.get("labelId", "INBOX") not in self.label_ids.values():
            raise Refused(404, "notFound", "Requested entity was not found.")
        records = []
        for one in self.records:
            mail = self.mails.get(one.uid)
            labels = set(one.changed) if mail is None else mail.labels
            if one.number <= begin or one.kind not in (kinds or HISTORY_TYPES):
                continue
            label = query.get("labelId")
            if label is not None and label not in labels and label not in one.changed:
                continue
            message = {"id": one.uid, "threadId": one.uid, "labelIds": sorted(labels)}
            change: dict[str, Any] = {"message": message}
            if one.kind in ("labelAdded", "labelRemoved"):
                change["labelIds"] = sorted(one.changed)
            records.append({"id": str(one.number), "messages": [message], HISTORY_TYPES[one.kind]: [change]})
        page, token = self._page(records, query)
        found = {"history": page, "nextPageToken": token, "historyId": str(self.number)}
        return {name: value for name, value in found.items() if value}

    def _sent(self, octets: bytes) -> dict[str, Any]:
        mail = email.message_from_bytes(octets)
        if not getaddresses([str(one) for name in ("To", "Cc", "Bcc") for one in mail.get_all(name, [])]):
            raise Refused(400, "invalidArgument", "Recipient address required")
        if self.renames:
            own = f"<CA{next(self._numbers):x}@mail.gmail.com>".encode()
            octets = re.sub(rb"(?im)^message-id:.*?\r\n(?! )", b"Message-ID: " + own + b"\r\n", octets, count=1)
        self.posted.append(octets)
        uid = self._put(octets, {"SENT"})
        if not self.keeps_sent:
            del self.mails[uid]
        return {"id": uid, "threadId": uid, "labelIds": ["SENT"]}

    def _put(self, octets: bytes, labels: set[str]) -> str:
        uid = f"{next(self._numbers):016x}"
        self.mails[uid] = Mail(uid, octets, labels, datetime.now(UTC))
        self._record("messageAdded", uid, tuple(labels))
        return uid

    def _uploaded(self, query: dict[str, str], kind: str, body: bytes) -> tuple[bytes, dict[str, Any]]:
        found = re.search(r"boundary=(\S+)", kind)
        if found is None or query.get("uploadType") != "multipart":
            raise Refused(400, "badRequest", "no multipart upload", contract=True)
        mark = f"--{found[1]}".encode()
        head = mark + b"\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        said, middle, media = body.partition(b"\r\n" + mark + b"\r\nContent-Type: message/rfc822\r\n\r\n")
        octets, end, rest = media.rpartition(b"\r\n" + mark + b"--")
        if not (said.startswith(head) and middle and end and rest.strip() == b""):
            raise Refused(400, "badRequest", "a multipart upload has metadata and media", contract=True)
        return octets, json.loads(said.removeprefix(head))

    def _import(self, query: dict[str, str], kind: str, body: bytes) -> dict[str, Any]:
        octets, about = self._uploaded(query, kind, body)
        if set(about) - {"labelIds", "threadId"}:
            raise Refused(400, "invalidArgument", "Unknown name", contract=True)
        labels = set(about.get("labelIds", []))
        if missing := labels - set(self.label_ids.values()):
            raise Refused(400, "invalidArgument", f"Invalid label: {missing.pop()}")
        uid = self._put(octets, labels)
        return {"id": uid, "threadId": uid, "labelIds": sorted(labels)}

    def _get(self, uid: str, form: str, wanted: set[str]) -> dict[str, Any]:
        mail = self._mail(uid)
        if form == "metadata":
            parsed = email.message_from_bytes(mail.octets)
            headers = [{"name": name, "value": str(value)} for name, value in parsed.items() if name.lower() in wanted]
            return {"id": uid, "threadId": uid, "labelIds": sorted(mail.labels), "payload": {"headers": headers}}
        if form not in ("raw", "minimal"):
            raise Refused(400, "invalidArgument", "Invalid format", contract=True)
        found: dict[str, Any] = {
            "id": uid, "threadId": uid, "labelIds": sorted(mail.labels), "snippet": 'a "raw": {snippet}',
            "sizeEstimate": len(mail.octets),
        }  # fmt: skip
        if form == "raw":
            found["raw"] = base64.urlsafe_b64encode(mail.octets).decode()
        return {**found, "historyId": str(self.number), "internalDate": str(int(mail.received.timestamp() * 1000))}

    def _mail(self, uid: str) -> Mail:
        if uid not in self.mails:
            raise Refused(404, "notFound", "Requested entity was not found.")
        return self.mails[uid]

    def _change(self, body: dict[str, Any]) -> tuple[set[str], set[str]]:
        if set(body) - {"ids", "addLabelIds", "removeLabelIds"}:
            raise Refused(400, "invalidArgument", "Unknown name", contract=True)
        add, remove = set(body.get("addLabelIds", ())), set(body.get("removeLabelIds", ()))
        if not add and not remove:
            raise Refused(400, "invalidArgument", "No label add or removes specified", contract=True)
        if add & remove or add & FIXED:
            raise Refused(400, "invalidArgument", "Invalid label change", contract=True)
        for label in add | remove:
            if label not in self.label_ids.values():
                raise Refused(400, "invalidArgument", f"labelId not found: {label}")
        return add, remove

    def _modify(self, uid: str, body: dict[str, Any]) -> dict[str, Any]:
        add, remove = self._change(body)
        mail = self._mail(uid)
        if not self.lies:
            self.relabel(uid, add, remove)
        return {"id": uid, "threadId": uid, "labelIds": sorted(mail.labels)}

    def _batch(self, body: dict[str, Any]) -> None:
        add, remove = self._change(body)
        ids = body.get("ids", [])
        if not 0 < len(ids) <= 1000:
            raise Refused(400, "invalidArgument", "Invalid ids", contract=True)
        if self.batch_knows_missing and any(uid not in self.mails for uid in ids):
            raise Refused(404, "notFound", "Requested entity was not found.")
        for uid in ids:
            if uid in self.mails and not self.lies:
                self.relabel(uid, add, remove)

    # --- used by the handler -----------------------------------------------------------------------------------
    def next_upset(self, said: str) -> Upset | None:
        with self._lock:
            for number, (pattern, upset) in enumerate(self._upsets):
                if pattern.search(said):
                    del self._upsets[number]
                    return upset
        return None

    def began(self, by: int) -> None:
        with self._lock:
            self._running += by
            self.most_at_once = max(self.most_at_once, self._running)


class _Handler(Handler):
    server_of: Gmail

    def setup(self) -> None:
        super().setup()
        self.server_of._connections.add(self.connection)

    def finish(self) -> None:
        self.server_of._connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def do_GET(self) -> None:
        gmail = self.server_of
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # cut on the way, which is nobody's fault
            self.close_connection = True
            return
        gmail.began(1)
        try:
            upset = gmail.next_upset(f"{self.command} {self.path}")
            if upset is not None and upset.status:
                status, said, headers = upset.status, upset.body, upset.headers
            else:
                status, said = self._true(body)
                headers = Upset.headers_of("application/json; charset=UTF-8")
                if upset is not None and upset.instead is not None:
                    said = upset.instead(said)
            if upset is not None:
                gmail.stopping.wait(upset.stall)
        finally:
            gmail.began(-1)  # before the answer, after which the next request may come
        self._send(status, said, headers, upset or Upset())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _true(self, body: bytes) -> tuple[int, bytes]:
        gmail = self.server_of
        try:
            if self.path == "/token":
                return 200, json.dumps(gmail.give_token(dict(parse_qsl(body.decode())))).encode()
            found = gmail.answer(self.command, self.path, self.headers, body)
            if found is None:
                return 204, b""
            said = json.dumps(found, indent=2).encode()
            return 200, said.replace(b"=", b"\\u003d") if gmail.escapes else said
        except Refused as refused:
            if refused.contract:
                gmail.violations.append(f"{self.command} {self.path}: {refused.message}")
            if self.path == "/token":
                return refused.status, json.dumps(
                    {"error": refused.reason, "error_description": refused.message}
                ).encode()
            return refused.status, error(refused.status, refused.reason, refused.message)

    def _send(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...], upset: Upset) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if upset.endless:
            self.send_header("Connection", "close")
            self.close_connection = True
        elif status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        gmail = self.server_of
        for begin in range(0, len(body[: upset.cut_after]), 1 << 16):
            piece = body[: upset.cut_after][begin : begin + (1 << 16)]
            self.wfile.write(piece)
            gmail.sent += len(piece)
        if upset.cut_after is not None:
            self.close_connection = True
        while upset.endless:
            self.wfile.write(upset.endless)
            gmail.sent += len(upset.endless)


def _masked(found: Any, mask: str) -> Any:
    """Only what a field mask names (``a,b(c,d)``). Raises :class:`Refused` for a field that nothing has."""
    if isinstance(found, list):
        return [_masked(one, mask) for one in found]
    kept = {}
    for name, inner in re.findall(r"(\w+)(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))?", mask):
        if name not in KNOWN_FIELDS:
            raise Refused(400, "invalidParameter", f"Invalid field selection {name}", contract=True)
        if isinstance(found, dict) and name in found:
            kept[name] = _masked(found[name], inner[1:-1]) if inner else found[name]
    return kept
