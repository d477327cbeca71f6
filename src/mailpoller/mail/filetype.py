"""What a file is by its own octets, whatever it calls itself; and whether it can run macros or is encrypted.

Nothing is unpacked: a signature at its begin, the directory at the end of a zip, names in the directory of an OLE file
(MS-CFB section 2.6), a word in a PDF. Octets are looked at as they go by; time is linear, memory a few times 64 KiB.
"""

from __future__ import annotations

import re

from mailpoller.core.record import record

_HEAD = 4096
_TAIL = 1 << 16
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "application/pdf"), (0, b"PK\3\4", "application/zip"), (0, b"PK\5\6", "application/zip"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"), (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"), (0, b"GIF87a", "image/gif"), (0, b"GIF89a", "image/gif"),
    (0, b"II*\0", "image/tiff"), (0, b"MM\0*", "image/tiff"), (8, b"WEBP", "image/webp"), (8, b"WAVE", "audio/x-wav"),
    (8, b"AVI ", "video/x-msvideo"), (4, b"ftypheic", "image/heic"), (4, b"ftypmif1", "image/heic"),
    (4, b"ftypqt", "video/quicktime"), (4, b"ftyp", "video/mp4"), (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"), (0, b"OggS", "audio/ogg"), (0, b"fLaC", "audio/flac"),
    (0, b"\x1a\x45\xdf\xa3", "video/x-matroska"), (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"\x1f\x8b", "application/gzip"), (0, b"BZh", "application/x-bzip2"), (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"), (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\7", "application/vnd.rar"), (0, b"MSCF", "application/vnd.ms-cab-compressed"),
    (257, b"ustar", "application/x-tar"), (2, b"-lh", "application/x-lzh"), (0, b"ITSF", "application/vnd.ms-htmlhelp"),
    (0, b"{\\rtf", "application/rtf"), (0, b"%!PS", "application/postscript"),
    (0, b"MZ", "application/vnd.microsoft.portable-executable"), (0, b"\x7fELF", "application/x-executable"),
    (0, b"\xca\xfe\xba\xbe", "application/java-vm"), (0, b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"L\0\0\0\1\x14\2\0", "application/x-ms-shortcut"), (0, b"#!", "text/x-shellscript"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "application/onenote"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (0, b"\x78\x9f\x3e\x22", "application/ms-tnef"), (0, b"-----BEGIN PGP MESSAGE", "application/pgp-encrypted"),
    (0, b"!<arch>\n", "application/x-archive"), (0, b"\xed\xab\xee\xdb", "application/x-rpm"),
    (0, b"BEGIN:VCALENDAR", "text/calendar"), (0, b"BEGIN:VCARD", "text/vcard"),
    (0, b"FWS", "application/x-shockwave-flash"), (0, b"CWS", "application/x-shockwave-flash"),
)  # fmt: skip
_PREFIXES = {magic[:2] for at, magic, _ in _SIGNATURES if at == 0}
_LATER = tuple(one for one in _SIGNATURES if one[0])
_ISO, _ISO_AT = b"CD001", 32769
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]{0,500}+>\s*+)?(?:<!--[^>]{0,500}+>\s*+)*+"
    rb"<(!doctype html|html|head|body|script|svg)[\s>/]",
    re.IGNORECASE,
)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*+<\?xml\s")
_BINARY_WITHIN = 64
_OF_TEXT = bytes((9, 10, 12, 13, *range(32, 256)))
_RIFF = frozenset(("image/webp", "audio/x-wav", "video/x-msvideo"))

_OFFICE = "application/vnd.openxmlformats-officedocument."
_IN_A_ZIP = (
    ("word/", f"{_OFFICE}wordprocessingml.document"), ("xl/", f"{_OFFICE}spreadsheetml.sheet"),
    ("ppt/", f"{_OFFICE}presentationml.presentation"),
    ("androidmanifest.xml", "application/vnd.android.package-archive"),
    ("meta-inf/manifest.mf", "application/java-archive"),
)  # fmt: skip
_ZIP_ENTRIES = 2000
_ZIP_TYPE = re.compile(rb"mimetype(application/[a-z0-9.+-]{1,80})")
_LOCAL_SIZE = 30
_OPEN_MACROS = ("basic/", "scripts/")

_OLE_SECTOR = 128
_OLE_NAMES = tuple(
    (name.encode("utf-16-le"), kind)
    for name, kind in (
        ("WordDocument\0", "application/msword"), ("Workbook\0", "application/vnd.ms-excel"),
        ("Book\0", "application/vnd.ms-excel"), ("PowerPoint Document\0", "application/vnd.ms-powerpoint"),
        ("__properties_version1.0\0", "application/vnd.ms-outlook"), ("EncryptedPackage\0", "encrypted"),
        ("_VBA_PROJECT\0", "macros"), ("_VBA_PROJECT_CUR\0", "macros"), ("VBA\0", "macros"),
    )
)  # fmt: skip
_OLE_FINDS = 50
_PDF_ENCRYPTED = re.compile(rb"/Encrypt[\s\d<]")
_OVERLAP = 128
_7Z_AES = b"\x06\xf1\x07\x01"


@record
class Look:
    """``kind``: the type that its octets are of, "" for what has no signature, such as text. ``macros``: it holds
    programs that run when it is opened. ``encrypted``: it, or a part of it, cannot be read without a key."""

    kind: str = ""
    macros: bool = False
    encrypted: bool = False


NOTHING = Look()


class Looker:
    """Looks at a file as its octets go by."""

    __slots__ = ("_before", "_begun", "_kind", "_marks", "_size", "_tail")

    def __init__(self) -> None:
        self._begun = False
        self._kind = ""
        self._marks: set[str] = set()
        self._tail = b""
        self._before = b""
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """The next octets."""
        if not self._begun and piece:
            self._begun = True
            self._kind = kind_of(piece[:_HEAD]) or (
                "application/x-iso9660-image" if piece[_ISO_AT : _ISO_AT + 5] == _ISO else ""
            )
            self._first(piece[:_HEAD])
        if self._kind == "application/pdf":
            if "encrypted" not in self._marks and _PDF_ENCRYPTED.search(self._before + piece):
                self._marks.add("encrypted")
            self._before = piece[-_OVERLAP:]
        elif self._kind == "application/x-ole-storage":
            self._names(self._before + piece, self._size - len(self._before))
            self._before = piece[-_OVERLAP:]
        elif self._kind in ("application/zip", "application/x-7z-compressed"):
            self._tail = piece[-_TAIL:] if len(piece) >= _TAIL else (self._tail + piece)[-_TAIL:]
        self._size += len(piece)

    def look(self) -> Look:
        """What it is, once all octets went by."""
        if not self._kind:
            return NOTHING
        kind, marks = self._kind, self._marks
        if kind == "application/zip":
            kind = self._zip() or kind
        elif kind == "application/x-ole-storage":
            kind = next((mark for mark in sorted(marks) if "/" in mark), kind)
        elif (kind == "application/x-7z-compressed" and _7Z_AES in self._tail) or kind == "application/pgp-encrypted":
            marks.add("encrypted")
        return Look(kind, "macros" in marks, "encrypted" in marks)

    def _first(self, head: bytes) -> None:
        if self._kind == "application/zip" and len(head) > _LOCAL_SIZE:
            if head[6] & 1:
                self._marks.add("encrypted")
            typed = _ZIP_TYPE.match(head, _LOCAL_SIZE)
            if typed is not None:  # OpenDocument 1.3 part 2 section 3.3, EPUB
                self._marks.add(typed[1].decode("ascii"))
        elif self._kind == "application/vnd.rar" and _rar_encrypted(head):
            self._marks.add("encrypted")

    def _names(self, octets: bytes, base: int) -> None:
        """Entries of an OLE directory begin with their names, at multiples of 128 octets."""
        for name, mark in _OLE_NAMES:
            at = -1
            for _ in range(_OLE_FINDS if mark not in self._marks else 0):
                at = octets.find(name, at + 1)
                if at < 0:
                    break
                if not (base + at) % _OLE_SECTOR:
                    self._marks.add(mark)
                    break

    def _zip(self) -> str:
        """What the names in the central directory tell (APPNOTE 4.3.12): it stands at the end."""
        tail, marks = self._tail, self._marks
        kind = next((mark for mark in marks if "/" in mark), "")
        end = tail.rfind(b"PK\5\6")
        size = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
        at = max(end - size, 0)
        if tail[at : at + 4] != b"PK\1\2":
            at = tail.find(b"PK\1\2")  # larger than what we kept: its last entries are there
        for _ in range(_ZIP_ENTRIES):
            entry = tail[at : at + 46] if at >= 0 else b""
            if len(entry) < 46 or entry[:4] != b"PK\1\2":
                break
            if entry[8] & 1:
                marks.add("encrypted")
            lengths = [int.from_bytes(entry[one : one + 2], "little") for one in (28, 30, 32)]
            name = tail[at + 46 : at + 46 + lengths[0]].decode("latin-1").lower().replace("\\", "/")
            kind = kind or next((found for begin, found in _IN_A_ZIP if name.startswith(begin)), "")
            if name.endswith("vbaproject.bin") or (".opendocument." in kind and name.startswith(_OPEN_MACROS)):
                marks.add("macros")
            at += 46 + sum(lengths)
        return kind


def _rar_encrypted(head: bytes) -> bool:
    """Of RAR 5 the first header, of RAR 4 the archive's own or the first file's says so."""
    if head[6:8] == b"\1\0":
        at = 12  # behind the signature and a checksum there is the header's size
        while head[at : at + 1] >= b"\x80":
            at += 1
        return head[at + 1 : at + 2] == b"\4"
    first = 7 + int.from_bytes(head[12:14], "little")
    return bool(head[10:11] and head[10] & 0x80) or (
        head[first + 2 : first + 3] == b"t" and bool(head[first + 3 : first + 4] and head[first + 3] & 4)
    )


def kind_of(head: bytes) -> str:
    """The type whose signature the first octets of a file bear, or ""."""
    if head[:2] in _PREFIXES:
        for at, magic, kind in _SIGNATURES:
            if head.startswith(magic, at) and (len(magic) > 3 or _is_no_text(head, magic)):
                return kind
    for at, magic, kind in _LATER:
        if head.startswith(magic, at) and (kind not in _RIFF or head.startswith(b"RIFF")):
            return kind
    markup = _MARKUP.match(head)
    if markup is not None:
        tag = markup[1].lower()
        return "image/svg+xml" if tag == b"svg" else "text/html"
    if _XML.match(head) is not None:
        return "application/xml"
    return "application/pdf" if b"%PDF-" in head[:1024] else ""  # readers look so far for it


def _is_no_text(head: bytes, magic: bytes) -> bool:
    """A signature of two or three letters may be the begin of a word."""
    return magic == b"#!" or not magic.isalpha() or bool(head[:_BINARY_WITHIN].translate(None, _OF_TEXT))
