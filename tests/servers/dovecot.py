"""A private Dovecot: IMAP, IMAPS and, if asked for, POP3 and LMTP, on free ports of 127.0.0.1.

Every user name logs in with :data:`PASSWORD` and has mailboxes (Maildir) of its own. Mail is delivered straight to
disk, and what the server holds is asked with :mod:`imaplib`, so that nothing of mailpoller is needed to judge
mailpoller.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import imaplib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from servers import programs
from servers.certificates import self_signed as self_signed
from servers.children import die_with_parent
from servers.ports import await_silence, free_ports

PASSWORD = "secret"
_TOKEN_KEY = b"only for tests, only for tests, only for tests!"

_CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
instance_name = {instance}
listen = 127.0.0.1
protocols = {protocols}
ssl = yes
ssl_cert = <{directory}/cert.pem
ssl_key = <{directory}/key.pem
ssl_dh =
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
default_login_user = {login_user}
default_internal_user = {internal_user}
default_vsz_limit = 0
default_process_limit = 300
default_client_limit = 1500
first_valid_uid = 1
mail_uid = {mail_user}
mail_gid = {mail_group}
mail_location = maildir:{directory}/mail/%u
mail_fsync = never
mail_max_userip_connections = 0
mailbox_list_index = no
mailbox_idle_check_interval = 1 s
{oauth}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = home={directory}/mail/%u
}}
namespace inbox {{
  inbox = yes
  prefix = {prefix}
  separator = {separator}
}}
service imap-login {{
  {chroot}
  service_count = 0
  client_limit = 300
  process_limit = 1
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = {imaps_port}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 300
  service_count = 50
}}
service anvil {{
  {chroot}
  client_limit = 1500
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  {chroot}
}}
{pop3}
{extra}
"""

_POP3 = """\
service pop3-login {{
  {chroot}
  service_count = 0
  client_limit = 300
  process_limit = 1
  inet_listener pop3 {{
    port = {pop3_port}
  }}
  inet_listener pop3s {{
    port = {pop3s_port}
    ssl = yes
  }}
}}
"""

_LMTP = """\
service lmtp {{
  {chroot}
  process_min_avail = 1
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
}}
"""

_OAUTH = """\
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {directory}/oauth2.conf.ext
}}
"""


class Dovecot:
    """One server; a context manager that starts it and leaves nothing behind.

    ``prefix`` and ``separator`` shape the personal namespace (``INBOX.`` and ``.`` is Courier's). ``stored`` is what
    it knows of the password, perhaps only a hash. ``extra`` is added to the configuration. The ports stay the same
    over :meth:`stop` and :meth:`start`. ``mechanisms`` are those of SASL that it offers; with ``oauth`` also XOAUTH2
    and OAUTHBEARER, for which it takes what :meth:`token` makes.
    """

    host = "127.0.0.1"
    password = PASSWORD

    def __init__(
        self,
        *,
        prefix: str = "",
        separator: str = "/",
        pop3: bool = False,
        oauth: bool = False,
        mechanisms: str = "plain login",
        stored: str = PASSWORD,
        lmtp: bool = False,
        extra: str = "",
    ) -> None:
        self.prefix = prefix
        self.separator = separator
        self.imap_port, self.imaps_port, self.pop3_port, self.pop3s_port, self.lmtp_port = free_ports(5)
        self.directory = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.directory.chmod(0o755)
        self._pop3 = pop3
        self._lmtp = lmtp
        self._oauth = oauth
        self._mechanisms = mechanisms + (" xoauth2 oauthbearer" if oauth else "")
        self._extra = extra
        self._stored = stored
        self._process: subprocess.Popen[bytes] | None = None
        self._delivered = 0

    # --- life ------------------------------------------------------------------------------------------------
    def __enter__(self) -> Dovecot:
        try:
            self._configure()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start the server (again); returns when it greets."""
        binary = programs.find("dovecot")
        if self._pop3:
            programs.find("dovecot-pop3")
        if self._lmtp:
            programs.find("dovecot-lmtp")
        with (self.directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [binary, "-F", "-c", str(self.directory / "dovecot.conf")],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.imap_port), 5) as probe:
                probe.settimeout(30)
                if probe.recv(4) == b"* OK":
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Dovecot does not start: {self.log()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server in order; every connection is closed. Returns when it can be started again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the server at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """End the server and remove all it left."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        for port in (self.imap_port, self.imaps_port, self.pop3_port, self.pop3s_port, self.lmtp_port):
            await_silence(port)

    def log(self) -> str:
        """What the server said about itself so far."""
        texts = [self.directory / "stderr", self.directory / "dovecot.log"]
        return "".join(path.read_text("utf-8", "replace") for path in texts if path.exists())

    @property
    def ca_file(self) -> Path:
        """The certificate that the server shows (for localhost and 127.0.0.1), which signs itself."""
        return self.directory / "cert.pem"

    def _configure(self) -> None:
        certificate, key = self_signed()
        (self.directory / "cert.pem").write_bytes(certificate)
        (self.directory / "key.pem").write_bytes(key)
        (self.directory / "mail").mkdir()
        privileged = os.geteuid() == 0
        me = pwd.getpwuid(os.geteuid()).pw_name
        owner = pwd.getpwnam("mail") if privileged else pwd.getpwuid(os.geteuid())
        self._owner = (owner.pw_uid, owner.pw_gid)
        os.chown(self.directory / "mail", *self._owner)
        values = {
            "directory": self.directory,
            "instance": self.directory.name,
            "protocols": " ".join(["imap"] + ["pop3"] * self._pop3 + ["lmtp"] * self._lmtp),
            "login_user": "dovenull" if privileged else me,
            "internal_user": "dovecot" if privileged else me,
            "mail_user": owner.pw_uid,
            "mail_group": owner.pw_gid,
            "password": self._stored,
            "mechanisms": self._mechanisms,
            "oauth": _OAUTH.format(directory=self.directory) if self._oauth else "",
            "prefix": self.prefix,
            "separator": self.separator,
            "imap_port": self.imap_port,
            "imaps_port": self.imaps_port,
            "pop3_port": self.pop3_port,
            "pop3s_port": self.pop3s_port,
            "lmtp_port": self.lmtp_port,
            "chroot": "" if privileged else "chroot =",
            "extra": self._extra,
        }
        if self._oauth:
            self._trust_tokens()
        pop3 = _POP3.format(**values) if self._pop3 else ""
        if self._lmtp:
            values["extra"] += _LMTP.format(**values)
        if not privileged:
            values["extra"] += f"\ndefault_internal_group = {os.getegid()}\n"
        (self.directory / "dovecot.conf").write_text(_CONFIGURATION.format(**values, pop3=pop3), "utf-8")

    # --- tokens ----------------------------------------------------------------------------------------------
    def _trust_tokens(self) -> None:
        """Tokens are signed with a key that the server has on disk, so that it asks nobody (RFC 7519, HS256)."""
        key = self.directory / "keys" / "test" / "HS256" / "test"
        key.parent.mkdir(parents=True)
        key.write_bytes(base64.b64encode(_TOKEN_KEY))
        settings = {
            "introspection_mode": "local",
            "local_validation_key_dict": f"fs:posix:prefix={self.directory}/keys/",
            "username_attribute": "sub",
        }
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (self.directory / "oauth2.conf.ext").write_text("".join(lines))

    def token(self, user: str, *, lifetime: float = 3600) -> str:
        """An access token for a user, good for so many seconds (less than nothing: it has expired). Needs ``oauth``."""
        import jwt

        now = int(time.time())
        claims = {
            "sub": user,
            "iat": now - 60,
            "nbf": now - 60,
            "exp": int(now + lifetime),
            "azp": "test",
            "scope": "mail",
        }
        return jwt.encode(claims, _TOKEN_KEY, algorithm="HS256", headers={"kid": "test"})

    # --- mail ------------------------------------------------------------------------------------------------
    def deliver(
        self,
        user: str,
        octets: bytes,
        folder: str = "INBOX",
        date: datetime.datetime | None = None,
        *,
        seen: bool = False,
    ) -> None:
        """Put one message into a folder (created if missing), as a delivery agent would: straight to disk.

        ``date`` is what the server tells as INTERNALDATE. Lone LF line ends are kept: the server shows CRLF.
        """
        self.deliver_all(user, [octets], folder, date, seen=seen)

    def deliver_all(
        self,
        user: str,
        messages: Sequence[bytes],
        folder: str = "INBOX",
        date: datetime.datetime | None = None,
        *,
        seen: bool = False,
    ) -> None:
        """As :meth:`deliver`, for many messages, in this order."""
        box = self.maildir(user, folder)
        if not box.is_dir():
            if folder.upper() == "INBOX":
                self._make_maildir(box)
            else:
                self.create(user, folder)
        for octets in messages:
            self._delivered += 1
            wire = octets.count(b"\n") - octets.count(b"\r\n") + len(octets)
            name = f"{time.time_ns() // 1000}.M{self._delivered:07d}.test,S={len(octets)},W={wire}"
            temporary = box / "tmp" / name
            temporary.write_bytes(octets)
            os.chown(temporary, *self._owner)
            if date is not None:
                os.utime(temporary, (date.timestamp(), date.timestamp()))
            temporary.rename(box / "cur" / (name + ":2,S") if seen else box / "new" / name)

    def maildir(self, user: str, folder: str = "INBOX") -> Path:
        """The directory of a folder."""
        box = self.directory / "mail" / user
        if folder.upper() == "INBOX":
            return box
        inner = folder.removeprefix(self.prefix).replace(self.separator, ".")
        return box / ("." + encode_name(inner))

    def _make_maildir(self, box: Path) -> None:
        for part in (box, box / "cur", box / "new", box / "tmp"):
            part.mkdir(parents=True, exist_ok=True)
            os.chown(part, *self._owner)

    def create(self, user: str, folder: str) -> None:
        """Create a folder, named as a client with this namespace would name it."""
        with self.client(user) as client:
            _expect(client.create(_quote(folder)))

    def renumber(self, user: str, folder: str = "INBOX") -> None:
        """Lose the folder's numbering: the next one to open it meets a new UIDVALIDITY and new UIDs."""
        box = self.maildir(user, folder)
        before = self.uidvalidity(user, folder)
        for leftover in [*box.glob("dovecot.index*"), *box.glob("dovecot-uidlist*")]:
            leftover.unlink(missing_ok=True)
        uidlist = box / "dovecot-uidlist"
        uidlist.write_text(f"3 V{before + 1} N1\n")
        os.chown(uidlist, *self._owner)

    def uidvalidity(self, user: str, folder: str = "INBOX") -> int:
        """The folder's present UIDVALIDITY."""
        with self.client(user) as client:
            _, (answer,) = client.status(_quote(folder), "(UIDVALIDITY)")
            return int(re.search(rb"UIDVALIDITY (\d+)", answer)[1])  # type: ignore[index]

    def flags(self, user: str, folder: str = "INBOX") -> dict[int, frozenset[str]]:
        """uid -> flags of every message of a folder, as another client sees them. Changes nothing."""
        with self.client(user) as client:
            _expect(client.select(_quote(folder), readonly=True))
            _, lines = client.uid("FETCH", "1:*", "(FLAGS)")
        found: dict[int, frozenset[str]] = {}
        for line in lines:
            if line and (match := re.search(rb"UID (\d+)", line)):
                flags = re.search(rb"FLAGS \(([^)]*)\)", line)[1].decode().split()  # type: ignore[index]
                found[int(match[1])] = frozenset(flags) - {"\\Recent"}
        return found

    def octets(self, user: str, folder: str = "INBOX") -> dict[int, bytes]:
        """uid -> octets of every message of a folder. Changes nothing."""
        with self.client(user) as client:
            _expect(client.select(_quote(folder), readonly=True))
            _, answers = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
        return {int(re.search(rb"UID (\d+)", head)[1]): body for head, body in filter(_has_body, answers)}  # type: ignore[index]

    def store(self, user: str, uids: str, flags: str, folder: str = "INBOX") -> None:
        """Change flags as another client would: ``flags`` is ``+FLAGS (\\Seen)`` and the like."""
        with self.client(user) as client:
            _expect(client.select(_quote(folder)))
            _expect(client.uid("STORE", uids, *flags.split(" ", 1)))

    def expunge(self, user: str, uids: str, folder: str = "INBOX") -> None:
        """Delete messages as another client would."""
        with self.client(user) as client:
            _expect(client.select(_quote(folder)))
            _expect(client.uid("STORE", uids, "+FLAGS.SILENT", "(\\Deleted)"))
            _expect(client.uid("EXPUNGE", uids))

    def move(self, user: str, uids: str, source: str, target: str) -> None:
        """Move messages as another client would."""
        with self.client(user) as client:
            _expect(client.select(_quote(source)))
            _expect(client.uid("MOVE", uids, _quote(target)))

    def folders(self, user: str) -> set[str]:
        """The names of all folders, as the namespace shows them."""
        with self.client(user) as client:
            _, lines = client.list()
        names = set()
        for line in lines:
            if isinstance(line, tuple):  # a name that came as a literal
                names.add(line[1])
            elif line and (match := re.fullmatch(rb'\(.*?\) (?:"."|NIL) (?:"((?:[^"\\]|\\.)*)"|(\S+))', line)):
                names.add(re.sub(rb"\\(.)", rb"\1", match[1]) if match[1] is not None else match[2])
        return {decode_name(name.decode()) for name in names}

    @contextlib.contextmanager
    def client(self, user: str) -> Iterator[imaplib.IMAP4]:
        """An independent client, logged in."""
        client = imaplib.IMAP4(self.host, self.imap_port, timeout=20)
        try:
            client.login(user, PASSWORD)
            yield client
        finally:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                client.logout()


def encode_name(name: str) -> str:
    """Modified UTF-7 (RFC 3501 section 5.1.3), written apart from mailpoller's own."""

    def shift(run: re.Match[str]) -> str:
        coded = base64.b64encode(run[0].encode("utf-16-be"), altchars=b"+,").rstrip(b"=")
        return f"&{coded.decode()}-"

    return re.sub(r"[^\x20-\x7e]+", shift, name.replace("&", "&-"))


def decode_name(name: str) -> str:
    """The inverse of :func:`encode_name`."""

    def unshift(run: re.Match[str]) -> str:
        padded = run[1] + "=" * (-len(run[1]) % 4)
        return base64.b64decode(padded, altchars=b"+,").decode("utf-16-be") if run[1] else "&"

    return re.sub(r"&([^-]*)-", unshift, name)


def _quote(folder: str) -> str:
    return '"' + encode_name(folder).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _expect(answer: tuple[str, Sequence[object]]) -> None:
    if answer[0] != "OK":
        raise RuntimeError(f"Dovecot refuses: {answer[1]!r}")


def _has_body(answer: object) -> bool:
    return isinstance(answer, tuple)
