"""Replies in every preset's charset, as readers of others show them: Perl's MIME::Parser and npm's mailparser.

Python's own is in ``tests/unit/test_reply_charset.py``, with the table of what is written in what.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailpoller.core.reply_charset import PRESETS, ReplyCharset
from mailpoller.core.sender import Sender
from mailpoller.mail.letter import letter_of
from mailpoller.mail.letter_form import letter_octets
from mailpoller.mail.reply_charset import written
from servers import programs

AT = datetime(2026, 11, 30, tzinfo=UTC)
TEXTS = (
    "Hello", "Grüße", "5 € für Grüße", "Grüße – „so“", "Příliš žluťoučký", "お問い合わせ", "お問い合わせ €",
    "お問い合わせ ①", "株式会社 ㈱ 髙橋", "您好,订单", "您好,朱镕基", "您好,訂單", "Привет", "Thanks 🙂",
)  # fmt: skip
PERL = r"""
use strict; use warnings; use MIME::Parser; use Encode; use JSON::PP;
my %found;
for my $file (@ARGV) {
    my $parser = MIME::Parser->new; $parser->output_to_core(1); $parser->tmp_to_core(1);
    my $mail = $parser->parse_open($file);
    my $subject = $mail->head->get('Subject'); $subject =~ s/\r?\n(?=[ \t])//g; $subject =~ s/\s+\z//;
    my $charset = $mail->head->mime_attr('content-type.charset') || 'us-ascii';
    my $text = Encode::decode($charset, $mail->bodyhandle->as_string, Encode::FB_CROAK);
    $found{$file} = [Encode::decode('MIME-Header', $subject), $text];
}
print JSON::PP->new->ascii->encode(\%found);
"""
NODE = r"""
const {simpleParser} = require('mailparser'); const fs = require('fs');
(async () => {
    const found = {};
    for (const file of process.argv.slice(1)) {
        const mail = await simpleParser(fs.readFileSync(file));
        found[file] = [mail.subject, mail.text];
    }
    console.log(JSON.stringify(found));
})();
"""
WISHES = (*PRESETS.values(), ReplyCharset("utf-8", "default", "ignore"))
CASES = [(wish, text) for wish in WISHES for text in TEXTS]


def read_by(command: list[str], directory: Path, *, but: frozenset[str] = frozenset()) -> None:
    """Have a reader show every mail, except for those in the charsets ``but``, and compare."""
    wanted: dict[str, list[str]] = {}
    for number, (wish, text) in enumerate(CASES):
        found = written(text, wish)
        if found.charset in but:
            continue
        letter = letter_of({"to": "a@x.example", "subject": text * 20, "text": text})
        octets = letter_octets(letter, Sender("s@x.example"), message_id="<m@x>", at=AT, wish=wish)
        (path := directory / f"{number}.eml").write_bytes(octets)
        expected = text.replace("€", "EUR") if found.euro_as_text else text
        wanted[str(path)] = [expected * 20, expected]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    shown: Mapping[str, list[str]] = json.loads(done.stdout)
    assert {name: [one.strip() for one in both] for name, both in shown.items()} == wanted


def test_perls_reader_shows_what_was_written(tmp_path: Path) -> None:
    perl = programs.found("perl")
    if perl is None or subprocess.run([perl, "-MMIME::Parser", "-e1"], capture_output=True, check=False).returncode:
        pytest.skip(f"MIME::Parser is not installed: {programs.lacking('perl')}")
    # Perl's own Encode knows no GB18030.
    read_by([perl, "-e", PERL], tmp_path, but=frozenset(("gb18030",)))


def test_nodes_reader_shows_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, npm = programs.found("node"), programs.found("npm")
    if node is None:
        pytest.skip(f"node is not installed: {programs.lacking('node')}")
    if npm is not None and "NODE_PATH" not in os.environ:
        root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, timeout=60, check=False)
        monkeypatch.setenv("NODE_PATH", root.stdout.strip())
    if subprocess.run([node, "-e", "require('mailparser')"], capture_output=True, check=False).returncode:
        pytest.skip("mailparser is not installed: npm install -g mailparser")
    read_by([node, "-e", NODE], tmp_path)
