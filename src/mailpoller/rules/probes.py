"""Tests of texts and addresses made into functions, once: each answers with the words in which it holds, or with ""."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from mailpoller.core.message import Address
from mailpoller.core.policy import is_listed
from mailpoller.rules.pattern import compile_pattern
from mailpoller.rules.texts import AddressTest, TextTest, WordFile
from mailpoller.rules.words import compile_words
from mailpoller.storage.listed import Listed, sender_list

TEXT_LIMIT = 1_000_000
"""Characters of one text that are looked at; folding and searching them takes milliseconds."""

Probe = Callable[[str], str]
AddressProbe = Callable[[Address], str]
T = TypeVar("T")


def text_probe(test: TextTest) -> tuple[Probe, str]:
    """What ``test`` says of one text, and in words what it asks. Raises :class:`ConfigError` if a file that it names
    cannot be read."""
    parts = _parts(test)
    if test.list_ is not None:
        parts.append(_line_of(test.list_, test.case == "sensitive"))
    return _every(parts)


def address_probe(test: AddressTest) -> tuple[AddressProbe, str]:
    """The same of one address."""
    parts: list[tuple[AddressProbe, str]] = [(_of_address(probe), says) for probe, says in _parts(test)]
    if test.domain is not None:
        parts.append(_domain(test.domain))
    if test.local is not None:
        probe, says = text_probe(test.local)
        parts.append((_of_local(probe), f"local part {says}"))
    if test.name is not None:
        probe, says = text_probe(test.name)
        parts.append((_of_name(probe), f"name {says}"))
    if test.list_ is not None:
        parts.append(_sender_of(test.list_))
    return _every(parts)


def _parts(test: TextTest) -> list[tuple[Probe, str]]:
    sensitive = test.case == "sensitive"
    parts: list[tuple[Probe, str]] = []
    if test.equals is not None:
        parts.append((_equals(test.equals, sensitive), _or("equals", test.equals)))
    if test.contains is not None:
        parts.append((_contains(test.contains, sensitive), _or("contains", test.contains)))
    if test.matches is not None:
        parts.append((_matches(test.matches, sensitive), _or("matches", test.matches)))
    if test.words is not None:
        parts.append(_has_words(test, sensitive))
    if test.exists is not None:
        parts.append(_exists(test.exists))
    return parts


def _every(parts: Sequence[tuple[Callable[[T], str], str]]) -> tuple[Callable[[T], str], str]:
    if len(parts) == 1:
        return parts[0]
    probes = [probe for probe, _ in parts]

    def every(value: T) -> str:
        reasons = []
        for probe in probes:
            if not (why := probe(value)):
                return ""
            reasons.append(why)
        return " and ".join(reasons)

    return every, " and ".join(says for _, says in parts)


def _contains(texts: Sequence[str], sensitive: bool) -> Probe:
    wanted = [(text if sensitive else text.casefold(), f'contains "{text}"') for text in texts]

    def probe(text: str) -> str:
        if not sensitive:
            text = text.casefold()
        for part, why in wanted:
            if part in text:
                return why
        return ""

    return probe


def _equals(texts: Sequence[str], sensitive: bool) -> Probe:
    reasons = {text if sensitive else text.casefold(): f'equals "{text}"' for text in texts}
    return lambda text: reasons.get(text if sensitive else text.casefold(), "")


def _matches(patterns: Sequence[str], sensitive: bool) -> Probe:
    wanted = [(compile_pattern(pattern, sensitive=sensitive), f'matches "{pattern}"') for pattern in patterns]

    def probe(text: str) -> str:
        for search, why in wanted:
            if search(text):
                return why
        return ""

    return probe


def _exists(wanted: bool) -> tuple[Probe, str]:
    says = "exists" if wanted else "does not exist"
    return lambda text: says if bool(text) is wanted else "", says


def _has_words(test: TextTest, sensitive: bool) -> tuple[Probe, str]:
    compiled = partial(compile_words, sensitive=sensitive, accents=test.accents == "sensitive")
    here = [one for one in test.words or () if isinstance(one, str)]
    lists = [
        Listed(one.file, compiled, compiled([])).required() for one in test.words or () if isinstance(one, WordFile)
    ]
    files = [str(one.file) for one in test.words or () if isinstance(one, WordFile)]
    find = compiled(here)

    def probe(text: str) -> str:
        found = find(text) if here else ""
        for one in lists:
            found = found or one.now()(text)
        return f'has the words "{found}"' if found else ""

    says = [_or("has the words", here)] if here else []
    return probe, " or ".join([*says, *(f"has the words of {file}" for file in files)])


def _line_of(path: Path, sensitive: bool) -> tuple[Probe, str]:
    def lines(found: Sequence[str]) -> frozenset[str]:
        return frozenset(line if sensitive else line.casefold() for line in found)

    empty: frozenset[str] = frozenset()
    listed, says = Listed(path, lines, empty).required(), f"is listed in {path}"
    return lambda text: says if (text if sensitive else text.casefold()) in listed.now() else "", says


def _sender_of(path: Path) -> tuple[AddressProbe, str]:
    listed, says = sender_list(path).required(), f"is listed in {path}"
    return lambda address: says if is_listed(address.address, listed.now()) else "", says


def _domain(domains: Sequence[str]) -> tuple[AddressProbe, str]:
    wanted = frozenset(form for domain in domains for form in _forms(domain.strip(".").lower()))
    says = _or("domain", domains)

    def probe(address: Address) -> str:
        domain = address.address.rpartition("@")[2][:255].lower().rstrip(".")
        while domain:
            if domain in wanted:
                return says
            domain = domain.partition(".")[2]
        return ""

    return probe, says


def _forms(domain: str) -> set[str]:
    """The domain in letters and in the form of the DNS (RFC 5891), as far as it has both."""
    forms = {domain}
    with suppress(UnicodeError):
        forms.add(domain.encode("idna").decode("ascii"))
    with suppress(UnicodeError):
        forms.add(domain.encode("ascii").decode("idna"))
    return forms


def _of_address(probe: Probe) -> AddressProbe:
    return lambda address: probe(address.address[:TEXT_LIMIT])


def _of_local(probe: Probe) -> AddressProbe:
    def local(address: Address) -> str:
        before, at, whole = address.address.rpartition("@")
        why = probe((before if at else whole)[:TEXT_LIMIT])
        return f"local part {why}" if why else ""

    return local


def _of_name(probe: Probe) -> AddressProbe:
    return lambda address: f"name {why}" if (why := probe(address.name[:TEXT_LIMIT])) else ""


def _or(verb: str, texts: Sequence[str]) -> str:
    return f"{verb} " + " or ".join(f'"{text}"' for text in texts)
