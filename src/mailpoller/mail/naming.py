"""Suffixes of file names and the types that they stand for, of what comes by mail. The system's own table differs from
one machine to the next."""

from __future__ import annotations

from collections.abc import Mapping

OCTETS = "application/octet-stream"

_OFFICE = "application/vnd.openxmlformats-officedocument."
_OPEN = "application/vnd.oasis.opendocument."
TYPES: dict[str, str] = {
    "7z": "application/x-7z-compressed", "avi": "video/x-msvideo", "bmp": "image/bmp", "css": "text/css",
    "csv": "text/csv", "doc": "application/msword", "docm": "application/vnd.ms-word.document.macroenabled.12",
    "docx": f"{_OFFICE}wordprocessingml.document", "eml": "message/rfc822", "gif": "image/gif",
    "gz": "application/gzip", "heic": "image/heic", "htm": "text/html", "html": "text/html", "ics": "text/calendar",
    "jpeg": "image/jpeg", "jpg": "image/jpeg", "json": "application/json", "log": "text/plain",
    "mov": "video/quicktime", "mp3": "audio/mpeg", "mp4": "video/mp4", "msg": "application/vnd.ms-outlook",
    "odp": f"{_OPEN}presentation", "ods": f"{_OPEN}spreadsheet", "odt": f"{_OPEN}text", "ogg": "audio/ogg",
    "p7m": "application/pkcs7-mime", "p7s": "application/pkcs7-signature", "pdf": "application/pdf",
    "pgp": "application/pgp-encrypted", "asc": "application/pgp-signature", "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint", "pptx": f"{_OFFICE}presentationml.presentation",
    "ps": "application/postscript", "rar": "application/vnd.rar", "rtf": "application/rtf", "svg": "image/svg+xml",
    "tar": "application/x-tar", "tif": "image/tiff", "tiff": "image/tiff", "txt": "text/plain",
    "vcf": "text/vcard", "wav": "audio/x-wav", "webp": "image/webp", "xls": "application/vnd.ms-excel",
    "xlsm": "application/vnd.ms-excel.sheet.macroenabled.12", "xlsx": f"{_OFFICE}spreadsheetml.sheet",
    "xml": "application/xml", "zip": "application/zip",
}  # fmt: skip
"""Suffix -> type, both in small letters."""

_SUFFIXES: Mapping[str, str] = {kind: suffix for suffix, kind in reversed(TYPES.items())} | {
    "text/plain": "txt", "text/html": "html", "image/jpeg": "jpg", "image/tiff": "tif", "text/xml": "xml",
    "application/ms-tnef": "dat", "application/vnd.ms-tnef": "dat", "application/ics": "ics", "image/jpg": "jpg",
    "message/global": "eml", "application/x-zip-compressed": "zip", "application/x-gzip": "gz",
    "message/delivery-status": "txt", "message/disposition-notification": "txt", "message/feedback-report": "txt",
    "text/rfc822-headers": "txt", "text/rtf": "rtf", "text/x-vcard": "vcf", "audio/wav": "wav",
    "application/x-pkcs7-mime": "p7m", "application/x-pkcs7-signature": "p7s", "application/x-pdf": "pdf",
    "application/pgp-keys": "asc", "text/x-amp-html": "html",
}  # fmt: skip


def type_of(name: str) -> str:
    """The type that a file name speaks of; ``application/octet-stream`` if it speaks of none that we know."""
    return TYPES.get(name.rpartition(".")[2].lower(), OCTETS) if "." in name else OCTETS


def suffix_of(kind: str) -> str:
    """The suffix of files of a type, without the dot; ``bin`` for one that we do not know."""
    return _SUFFIXES.get(kind, "bin")
