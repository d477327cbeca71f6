"""Microsoft Graph as its published contract has it, for one mailbox: strict, and able to misbehave.

What the contract does not know is refused and noted in ``violations``: an unknown query option, a missing header, a
body that does not belong there. It also is the token endpoint. Everything runs in threads, so that it serves another
process too.

    with Graph() as graph:
        graph.deliver(b"Subject: hello\\r\\n\\r\\n")
        GraphConfig(type="graph", user=graph.user, url=graph.url, auth=graph.auth)
"""

from __future__ import annotations

import base64
import binascii
import email
import email.policy
import itertools
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import getaddresses
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from servers.ports import free_port
from servers.requests import Handler

WELL_KNOWN = {
    "msgfolderroot": "Top of Information "
                     "Store", "inbox": "Inbox", "deleteditems": "Deleted Items", "archive": "Archive",
    "junkemail": "Junk Email", "sentitems": "Sent Items", "drafts": "Drafts", "recoverableitemsdeletions": "Deletions",
}  # fmt: skip
PROPERTIES = {
    "id", "isRead", "receivedDateTime", "createdDateTime", "flag", "categories", "parentFolderId",
    "internetMessageHeaders", "isDraft", "internetMessageId",
}  # fmt: skip
SCOPES = frozenset({"Mail.Read", "Mail.ReadWrite", "Mail.Send"})
LARGEST_REQUEST = 4 << 20


@dataclass(slots=True)
class Mail:
    """One message. ``flags`` as IMAP would name them come from the other fields."""

    uid: str
    octets: bytes
    folder: str
    seen: bool
    received: datetime
    created: datetime
    flagged: bool = False
    categories: tuple[str, ...] = ()

    @property
    def flags(self) -> frozenset[str]:
        return frozenset(
            [*(["\\Seen"] if self.seen else []), *(["\\Flagged"] if self.flagged else []), *self.categories]
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was made, also inside a batch."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    batched: bool = False


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


@dataclass(slots=True)
class Said:
    """An answer: JSON, octets, or nothing."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Graph:
    """The service with one mailbox. Attributes may be changed at any time; see the comments."""

    user = "support@example.com"
    application = "11111111-2222-3333-4444-555555555555"
    secret = "the-secret-value~that.nobody-may-see-0123456789"

    def __init__(self) -> None:
        self.page_size = 1000  # messages of a page at most, whatever is asked for
        self.reorders = False  # listings and batches in any order
        self.repeats = False  # a listing's page shows the last message of the one before again
        self.forgets_round_trips = False  # a message that was moved away and back is not in the delta
        self.scopes: set[str] = set(SCOPES)  # what the application may do
        self.pause = 0.0  # seconds that every request takes
        self.silent = False  # return=minimal is obeyed: what was changed is not shown
        self.lies: set[str] = set()  # what is answered with success and not done: PATCH, move, DELETE, permanentDelete
        self.broken: dict[str, tuple[int, str]] = {}  # uid -> status and code instead of its content
        self.instead: Callable[[Asked], Said | bytes | None] | None = None  # another answer; octets are sent raw
        self.lifetime = 3600  # seconds of a token
        self.violations: list[str] = []
        self.asked: list[Asked] = []
        self.sent: list[bytes] = []
        self.renames = False  # drafts get a Message-ID of the service's own
        self.keeps_sent = True  # what was sent stays among the sent mail
        self.tokens: list[str] = []
        self.most_at_once = 0
        self._refusals: list[Refused] = []
        self._part_refusals: list[Refused] = []
        self._lock = threading.RLock()
        self._mails: dict[str, Mail] = {}
        self._folders: dict[str, tuple[str, str]] = {}  # id -> name, parent
        self._known: dict[str, str] = {}  # well-known name -> id
        self._changes: list[tuple[str, str, str]] = []  # folder, in | out | update, uid
        self._states: dict[str, tuple[str, int, list[str] | None, int, str]] = {}
        self._numbers = itertools.count(1)
        self._at_once = 0
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None
        for name, shown in WELL_KNOWN.items():
            self._known[name] = self._made(shown, self._known.get("msgfolderroot", ""))

    # --- for tests ---------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1.0"

    @property
    def auth(self) -> dict[str, str]:
        return self.auth_at(self.port)

    def auth_at(self, port: int) -> dict[str, str]:
        """An ``auth`` block; tokens are asked for at ``port``."""
        return {
            "type": "oauth2", "provider": "microsoft", "grant": "client_credentials", "tenant": "example.com",
            "client_id": self.application, "client_secret": self.secret,
            "token_url": f"http://127.0.0.1:{port}/example.com/oauth2/v2.0/token",
        }  # fmt: skip

    def __enter__(self) -> Graph:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen (again), on the same port as before."""
        handler = type("Handler", (_Handler,), {"graph": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.cut()
            self._server.server_close()
            self._server = None

    def throttle(self, count: int = 1, *, retry_after: float | None = None, status: int = 429) -> None:
        """Refuse the next requests."""
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        refusal = Refused(status, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", headers)
        self._refusals += [refusal] * count

    def throttle_parts(
        self, count: int, *, retry_after: float | None = None, status: int = 429, code: str = ""
    ) -> None:
        """Refuse the next requests inside of batches."""
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        self._part_refusals += [Refused(status, code or "ApplicationThrottled", "", headers)] * count

    def expire(self) -> None:
        """Forget every delta and skip token."""
        with self._lock:
            self._states.clear()

    def revoke(self) -> None:
        """Take no token any more that was given before."""
        self.tokens.clear()

    def add_folder(self, name: str, parent: str = "msgfolderroot") -> str:
        with self._lock:
            return self._made(name, self._known.get(parent, parent))

    def rename_folder(self, path: str, name: str) -> None:
        uid = self._path(path)
        assert uid is not None
        self._folders[uid] = name, self._folders[uid][1]

    def remove_folder(self, path: str) -> None:
        uid = self._path(path)
        assert uid is not None
        with self._lock:
            del self._folders[uid]
            for one in [one for one in self._mails.values() if one.folder == uid]:
                del self._mails[one.uid]

    def deliver(
        self,
        octets: bytes,
        folder: str = "inbox",
        *,
        seen: bool = False,
        received: datetime | None = None,
        created: datetime | None = None,
    ) -> str:
        """Put a message into a folder (a path of display names, or a well-known name): its uid."""
        uid = f"AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A{next(self._numbers):06}{secrets.token_urlsafe(70)}_AA="
        now = datetime.now(UTC).replace(microsecond=0)
        place = self._path(folder)
        assert place is not None, folder
        with self._lock:
            self._mails[uid] = Mail(uid, octets, place, seen, received or now, created or now)
            self._changes.append((place, "in", uid))
        return uid

    def mails(self, folder: str = "inbox") -> list[Mail]:
        uid = self._path(folder)
        return [one for one in self._mails.values() if one.folder == uid]

    def mail(self, octets: bytes) -> Mail:
        return next(one for one in self._mails.values() if one.octets == octets)

    def remove(self, octets: bytes) -> None:
        with self._lock:
            gone = self._mails.pop(self.mail(octets).uid)
            self._changes.append((gone.folder, "out", gone.uid))

    def move(self, uid: str, folder: str) -> None:
        """As a person does it."""
        place = self._path(folder)
        assert place is not None
        with self._lock:
            self._move(self._mails[uid], place)

    def change(self, uid: str, **fields: Any) -> None:
        """As a person does it: read, flagged, categories."""
        with self._lock:
            for name, value in fields.items():
                setattr(self._mails[uid], name, value)
            self._changes.append((self._mails[uid].folder, "update", uid))

    def count(self, pattern: str, *, method: str = "GET") -> int:
        """How many requests had a path that matches."""
        return sum(1 for one in self.asked if one.method == method and re.search(pattern, one.path))

    # --- folders -----------------------------------------------------------------------------------------------
    def _made(self, name: str, parent: str) -> str:
        uid = f"AAMkAGVmMDEzMTM4{next(self._numbers):04}-T7KzowPTAAAAAAEM{secrets.token_urlsafe(30)}AAA="
        self._folders[uid] = name, parent
        return uid

    def _path(self, path: str) -> str | None:
        first, *rest = path.split("/")
        uid = self._known.get(first.lower())
        if uid is None:
            uid, rest = self._known["msgfolderroot"], [first, *rest]
        for part in rest:
            uid = next((one for one, (name, parent) in self._folders.items() if (name, parent) == (part, uid)), None)
            if uid is None:
                return None
        return uid

    def _folder(self, named: str) -> str:
        uid = self._known.get(named, named)
        if uid not in self._folders:
            raise Refused(404, "ErrorItemNotFound", "The specified object was not found in the store.")
        return uid

    def _move(self, mail: Mail, place: str) -> None:
        if mail.folder != place:
            self._changes.append((mail.folder, "out", mail.uid))
            self._changes.append((place, "in", mail.uid))
            mail.folder = place

    # --- requests ----------------------------------------------------------------------------------------------
    def token(self, form: Mapping[str, str]) -> Said:
        """The token endpoint of Entra ID."""
        known = {"grant_type", "client_id", "client_secret", "scope"}
        if set(form) != known or form["grant_type"] != "client_credentials":
            self.violations.append(f"token: {sorted(form)}")
            return Said(400, {"error": "invalid_request", "error_description": "AADSTS900144: not so"})
        if form["client_secret"] != self.secret or form["client_id"] != self.application:
            words = "AADSTS7000215: Invalid client secret provided."
            return Said(401, {"error": "invalid_client", "error_description": words})
        payload = base64.urlsafe_b64encode(json.dumps({"roles": sorted(self.scopes)}).encode()).decode().rstrip("=")
        token = f"eyJ0eXAiOiJKV1QifQ.{payload}.{secrets.token_urlsafe(60)}"
        self.tokens.append(token)
        return Said(200, {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token})

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Said | bytes:
        """One request to the service itself, batches included."""
        parts = urlsplit(target)
        asked = Asked(method, unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True)), headers)
        with self._lock:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.pause)
            if self.instead is not None and (other := self.instead(asked)) is not None:
                return other
            if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
                raise Refused(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
            if self._at_once > 4:
                self.violations.append("more than four requests at a time")
                raise Refused(429, "MailboxConcurrency", "Application is over its MailboxConcurrency limit.")
            if self._refusals:
                raise self._refusals.pop(0)
            if not parts.path.startswith("/v1.0/"):
                raise self._violation(f"{parts.path} is of no version")
            path = parts.path.removeprefix("/v1.0")
            if path == "/$batch":
                return self._batch(headers, body)
            with self._lock:
                return self._one(method, path, asked.query, headers, body)
        except Refused as refused:
            return _error(refused)
        finally:
            with self._lock:
                self._at_once -= 1

    def _violation(self, words: str) -> Refused:
        self.violations.append(words)
        return Refused(400, "BadRequest", words)

    def _batch(self, headers: Mapping[str, str], body: bytes) -> Said:
        self._demand_json(headers)
        found = json.loads(body)
        requests = found.get("requests")
        if set(found) != {"requests"} or not isinstance(requests, list) or not 1 <= len(requests) <= 20:
            raise self._violation("a batch has 1 to 20 requests and nothing else")
        if len({one["id"].lower() for one in requests}) < len(requests):
            raise self._violation("an id of a batch occurs twice")
        responses = []
        for one in requests:
            said = self._part(one)
            responses.append({"id": one["id"], "status": said.status, "headers": said.headers, "body": said.body})
        if self.reorders:
            responses.reverse()
        return Said(200, {"responses": responses})

    def _part(self, one: dict[str, Any]) -> Said:
        try:
            if set(one) - {"id", "method", "url", "headers", "body"} or not one["url"].startswith("/users/"):
                raise self._violation(f"a request of a batch is {sorted(one)} of {one['url']}")
            headers = {name.lower(): value for name, value in one.get("headers", {}).items()}
            parts = urlsplit(one["url"])
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            with self._lock:
                self.asked.append(Asked(one["method"], unquote(parts.path), query, headers, batched=True))
                if self._part_refusals:
                    raise self._part_refusals.pop(0)
                body = json.dumps(one["body"]).encode() if "body" in one else b""
                return self._one(one["method"], parts.path, query, headers, body)
        except Refused as refused:
            return _error(refused)

    def _demand_json(self, headers: Mapping[str, str]) -> None:
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            raise self._violation("a body without Content-Type: application/json")

    def _one(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Said:
        preferences = [one.strip() for one in headers.get("prefer", "").split(",")]
        if 'IdType="ImmutableId"' not in preferences:
            raise self._violation(f"{method} {path} without the preference for immutable ids")
        if any(
            not re.fullmatch(r'IdType="ImmutableId"|odata\.maxpagesize=\d+|return=minimal', one) for one in preferences
        ):
            raise self._violation(f"an unknown preference: {headers['prefer']}")
        user, *steps = [unquote(step) for step in path.removeprefix("/users/").split("/")]
        if not path.startswith("/users/"):
            raise self._violation(f"unknown path {path}")
        if user.lower() != self.user:
            raise Refused(404, "ErrorInvalidUser", f"The requested user '{user}' is invalid.")
        if body and (method, steps) not in (("POST", ["sendMail"]), ("POST", ["messages"])):
            self._demand_json(headers)
        match method, steps:
            case "GET", ["mailFolders", named]:
                self._may("Mail.Read", "Mail.ReadWrite")
                self._options(query, "$select")
                return Said(200, self._shown_folder(self._folder(named)))
            case "GET", ["mailFolders", named, "childFolders"]:
                self._may("Mail.Read", "Mail.ReadWrite")
                self._options(query, "$select", "$filter", "$top")
                return self._children(self._folder(named), query)
            case "POST", ["mailFolders", named, "childFolders"]:
                self._may("Mail.ReadWrite")
                self._options(query)
                return self._create(self._folder(named), json.loads(body))
            case "GET", ["mailFolders", named, "messages", "delta"]:
                self._may("Mail.Read", "Mail.ReadWrite")
                return self._delta(self._folder(named), query, headers)
            case "GET", ["mailFolders", named, "messages"]:
                self._may("Mail.Read", "Mail.ReadWrite")
                return self._listed(self._folder(named), query)
            case "GET", ["messages", uid, "$value"]:
                self._may("Mail.Read", "Mail.ReadWrite")
                self._options(query)
                mail = self._mail(uid)
                if uid in self.broken:
                    raise Refused(*self.broken[uid], "The message cannot be converted.")
                return Said(200, mail.octets, {"Content-Type": "text/plain"})
            case "GET", ["messages", uid]:
                self._may("Mail.Read", "Mail.ReadWrite")
                self._options(query, "$select")
                return Said(200, self._shown(self._mail(uid), query.get("$select")))
            case "PATCH", ["messages", uid]:
                self._may("Mail.ReadWrite")
                self._options(query)
                changed = self._changed(uid, json.loads(body))
                return Said(204) if self.silent and "return=minimal" in preferences else changed
            case "POST", ["messages", uid, "move"]:
                self._may("Mail.ReadWrite")
                self._options(query)
                found = json.loads(body)
                if set(found) != {"destinationId"}:
                    raise self._violation(f"move with {sorted(found)}")
                mail = self._mail(uid)
                if "move" not in self.lies:
                    self._move(mail, self._folder(found["destinationId"]))
                return Said(204) if self.silent else Said(201, self._shown(mail, None))
            case ("DELETE", ["messages", uid]) | ("POST", ["messages", uid, "permanentDelete"]):
                self._may("Mail.ReadWrite")
                self._options(query)
                if body:
                    raise self._violation("a deletion with a body")
                mail = self._mail(uid)
                if steps[-1] in self.lies or method in self.lies:
                    return Said(204)
                if method == "DELETE":
                    self._move(mail, self._known["recoverableitemsdeletions"])
                else:
                    self._changes.append((mail.folder, "out", uid))
                    del self._mails[uid]
                return Said(204)
            case "POST", ["sendMail"]:
                self._may("Mail.Send")
                self._options(query)
                self.sent.append(self._sendable(self._mime(headers, body)))
                return Said(202, b"")
            case "POST", ["messages"]:
                self._may("Mail.ReadWrite")
                self._options(query)
                return self._draft(self._mime(headers, body))
            case "POST", ["messages", uid, "send"]:
                self._may("Mail.Send")
                self._options(query)
                return self._submit(self._mail(uid))
        raise self._violation(f"unknown request {method} {path}")

    def _may(self, *scopes: str) -> None:
        if self.scopes.isdisjoint(scopes):
            raise Refused(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")

    def _options(self, query: Mapping[str, str], *known: str) -> None:
        if unknown := sorted(set(query) - set(known)):
            raise self._violation(f"unknown query options: {unknown}")
        for name in (query.get("$select") or "id").split(","):
            if name not in PROPERTIES | {"displayName", "parentFolderId"}:
                raise self._violation(f"unknown property {name}")
        if not query.get("$top", "1").isdigit() or not 1 <= int(query.get("$top", "1")) <= 1000:
            raise self._violation("$top is 1 to 1000")

    # --- folders and messages ----------------------------------------------------------------------------------
    def _shown_folder(self, uid: str) -> dict[str, Any]:
        name, parent = self._folders[uid]
        return {"id": uid, "displayName": name, "parentFolderId": parent}

    def _children(self, parent: str, query: dict[str, str]) -> Said:
        names = [uid for uid, (_, above) in self._folders.items() if above == parent]
        if (wanted := query.get("$filter")) is not None:
            found = re.fullmatch(r"displayName eq '((?:[^']|'')*)'", wanted)
            if found is None:
                raise self._violation(f"unknown filter {wanted}")
            name = found[1].replace("''", "'").lower()
            names = [uid for uid in names if self._folders[uid][0].lower() == name]
        return Said(200, {"value": [self._shown_folder(uid) for uid in names]})

    def _create(self, parent: str, body: dict[str, Any]) -> Said:
        if set(body) - {"displayName", "isHidden"} or not body.get("displayName"):
            raise self._violation(f"a folder of {sorted(body)}")
        if any(
            above == parent and name.lower() == body["displayName"].lower() for name, above in self._folders.values()
        ):
            raise Refused(409, "ErrorFolderExists", "A folder with the specified name already exists.")
        return Said(201, self._shown_folder(self._made(body["displayName"], parent)))

    def _mail(self, uid: str) -> Mail:
        if not uid.startswith("AA"):
            raise Refused(400, "ErrorInvalidIdMalformed", "Id is malformed.")
        if uid not in self._mails:
            raise Refused(404, "ErrorItemNotFound", "The specified object was not found in the store.")
        return self._mails[uid]

    def _shown(self, mail: Mail, select: str | None) -> dict[str, Any]:
        whole = {
            "isRead": mail.seen,
            "receivedDateTime": f"{mail.received.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "createdDateTime": f"{mail.created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "flag": {"flagStatus": "flagged" if mail.flagged else "notFlagged"},
            "categories": list(mail.categories),
            "parentFolderId": mail.folder,
            "internetMessageHeaders": [],
            "isDraft": mail.folder == self._known["drafts"],
            "internetMessageId": str(email.message_from_bytes(mail.octets).get("Message-ID", "")),
        }
        names = whole if select is None else select.split(",")
        return {"@odata.etag": 'W/"CQAAABYA"', "id": mail.uid, **{one: whole[one] for one in names if one in whole}}

    def _changed(self, uid: str, body: dict[str, Any]) -> Said:
        mail = self._mail(uid)
        if not body or set(body) - {"isRead", "flag", "categories"}:
            raise self._violation(f"a change of {sorted(body)}")
        if "PATCH" in self.lies:
            return Said(200, self._shown(mail, None))
        mail.seen = body.get("isRead", mail.seen)
        if "flag" in body:
            mail.flagged = body["flag"]["flagStatus"] == "flagged"
        mail.categories = tuple(body.get("categories", mail.categories))
        self._changes.append((mail.folder, "update", uid))
        return Said(200, self._shown(mail, None))

    def _listed(self, folder: str, query: dict[str, str]) -> Said:
        self._options(query, "$select", "$filter", "$orderby", "$top", "$skip")
        mails = [one for one in self._mails.values() if one.folder == folder]
        if (wanted := query.get("$filter")) is not None:
            found = re.fullmatch(r"receivedDateTime (ge|gt) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)", wanted)
            if found is None or query.get("$orderby", "receivedDateTime").split()[0] != "receivedDateTime":
                raise self._violation(f"unknown filter {wanted}")
            instant = datetime.fromisoformat(found[2])
            mails = [one for one in mails if one.received >= instant]
        mails.sort(key=lambda one: one.received)
        skip, top = int(query.get("$skip", "0")), min(int(query.get("$top", "10")), self.page_size)
        body: dict[str, Any] = {"value": [self._shown(one, query.get("$select")) for one in mails[skip : skip + top]]}
        if skip + top < len(mails):
            rest = {**query, "$skip": str(skip + top)}
            body["@odata.nextLink"] = self._link(folder, "", rest)
        return Said(200, body)

    # --- delta queries -----------------------------------------------------------------------------------------
    def _link(self, folder: str, suffix: str, query: Mapping[str, str]) -> str:
        from urllib.parse import quote, urlencode

        path = f"{self.url}/users/{quote(self.user)}/mailFolders/{quote(folder)}/messages{suffix}"
        return f"{self._origin(path)}?{urlencode(query)}"

    def _origin(self, url: str) -> str:
        """Links are of the host that was asked, which may be a proxy's port."""
        return url.replace(f":{self.port}/", f":{self.reached_at or self.port}/", 1)

    reached_at = 0

    def _delta(self, folder: str, query: dict[str, str], headers: Mapping[str, str]) -> Said:
        token = query.get("$deltatoken") or query.get("$skiptoken")
        if token is not None:
            if len(query) != 1:
                raise self._violation(f"a link of a delta query was changed: {sorted(query)}")
            if token not in self._states:
                raise Refused(410, "syncStateNotFound", "The sync state generation is not found.")
            of, before, uids, offset, select = self._states[token]
            if of != folder:
                raise self._violation("a token of another folder")
        else:
            self._options(query, "$select", "$top", "changeType")
            before, uids, offset, select = len(self._changes), None, 0, query.get("$select", "")
            uids = [one.uid for one in self._mails.values() if one.folder == folder]
            if self.reorders:
                uids.sort(key=lambda uid: uid[::-1])
        after = before
        if uids is None:
            uids = self._since(folder, before)
            after = len(self._changes)
        wish = re.search(r"odata\.maxpagesize=(\d+)", headers.get("prefer", ""))
        size = min(int(wish[1]) if wish else 10, self.page_size)
        piece = uids[max(0, offset - 1) if self.repeats else offset : offset + size]
        values = []
        for uid in piece:
            mail = self._mails.get(uid)
            if mail is not None and mail.folder == folder:
                values.append(self._shown(mail, select or None))
            else:
                values.append({"id": uid, "@removed": {"reason": "deleted"}})
        body: dict[str, Any] = {"value": values}
        following = secrets.token_urlsafe(200)
        if offset + size < len(uids):
            self._states[following] = folder, after, uids, offset + size, select
            body["@odata.nextLink"] = self._link(folder, "/delta", {"$skiptoken": following})
        else:
            self._states[following] = folder, after, None, 0, select
            body["@odata.deltaLink"] = self._link(folder, "/delta", {"$deltatoken": following})
        return Said(200, body)

    def _since(self, folder: str, before: int) -> list[str]:
        """The uids of what changed in a folder, oldest first."""
        kinds: dict[str, list[str]] = {}
        for place, kind, uid in self._changes[before:]:
            if place == folder:
                kinds.setdefault(uid, []).append(kind)
        if self.forgets_round_trips:
            kinds = {uid: found for uid, found in kinds.items() if found != ["out", "in"]}
        return list(kinds)

    # --- sending -----------------------------------------------------------------------------------------------
    def _mime(self, headers: Mapping[str, str], body: bytes) -> bytes:
        if headers.get("content-type", "").partition(";")[0] != "text/plain":
            raise self._violation("a mail without Content-Type: text/plain")
        if len(body) > LARGEST_REQUEST:
            raise Refused(413, "RequestBodyTooLarge", "The request body is too large.")
        try:
            octets = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            octets = b""
        if not octets:
            raise Refused(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
        return octets

    def _sendable(self, octets: bytes) -> bytes:
        mail = email.message_from_bytes(octets, policy=email.policy.compat32)
        if [address for _, address in getaddresses([str(mail.get("From", ""))])] != [self.user]:
            raise Refused(
                403, "ErrorSendAsDenied", "The user account does not have the right to send mail as the sender."
            )
        if not getaddresses([str(one) for name in ("To", "Cc", "Bcc") for one in mail.get_all(name, [])]):
            raise Refused(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
        return octets

    def _draft(self, octets: bytes) -> Said:
        if self.renames:
            own = f"<{next(self._numbers)}@prod.exchangelabs.example>".encode()
            octets = re.sub(rb"(?im)^message-id:.*?\r\n(?! )", b"Message-ID: " + own + b"\r\n", octets, count=1)
        return Said(201, self._shown(self._mails[self.deliver(octets, "drafts", seen=True)], None))

    def _submit(self, mail: Mail) -> Said:
        self.sent.append(self._sendable(mail.octets))
        if self.keeps_sent:
            self._move(mail, self._known["sentitems"])
        else:
            del self._mails[mail.uid]
        return Said(202, b"")


def _error(refused: Refused) -> Said:
    inner = {"date": "2026-11-22T00:00:00", "request-id": "93b6f17e-c05d-4f45-ad2a-6665c708d8a0"}
    body = {"error": {"code": refused.code, "message": refused.message, "innerError": inner}}
    return Said(refused.status, body, dict(refused.headers))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for one in list(self._open):
            try:
                one.shutdown(2)
            except OSError:
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no error here."""


class _Handler(Handler):
    graph: Graph

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # cut on the way, which is nobody's fault
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path.endswith("/oauth2/v2.0/token") and self.command == "POST":
            said: Said | bytes = self.graph.token(dict(parse_qsl(body.decode())))
        else:
            said = self.graph.answer(self.command, self.path, headers, body)
        if isinstance(said, bytes):
            self.wfile.write(said)
            self.close_connection = True
            return
        content = b"" if said.body is None else said.body if isinstance(said.body, bytes) else _json(said.body)
        self.send_response(said.status)
        if "Content-Type" not in said.headers and content:
            self.send_header("Content-Type", "application/json;odata.metadata=minimal;charset=utf-8")
        for name, value in said.headers.items():
            self.send_header(name, value)
        if said.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


@contextmanager
def strict_graph() -> Iterator[Graph]:
    """A service whose contract must have been kept in the end."""
    with Graph() as graph:
        yield graph
        assert graph.violations == []
