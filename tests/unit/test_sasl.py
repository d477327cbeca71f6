"""SASL: the RFCs' own examples, which mechanism is chosen, and servers that break the rules."""

from __future__ import annotations

from base64 import b64encode

import pytest

from mailpoller.core.errors import CredentialsRefused, TransientError
from mailpoller.wire.sasl.choice import by_password, by_token
from mailpoller.wire.sasl.exchange import Exchange, decoded, encoded, initial
from mailpoller.wire.sasl.mechanisms import CramMd5, External, Login, OAuthBearer, Plain, XOAuth2
from mailpoller.wire.sasl.scram import ScramSha1, ScramSha256, prepared

TOKEN = "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="


# --- the RFCs' examples ----------------------------------------------------------------------------------------------
async def test_scram_sha_1_as_in_rfc_5802_section_5() -> None:
    exchange = ScramSha1("user", "pencil", nonce="fyko+d2lbbFgONRv9qkxdawL")
    assert exchange.first() == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    final = await exchange.answer(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    assert final == b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    assert await exchange.answer(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=") == b""
    exchange.conclude()


FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def scram() -> ScramSha256:
    return ScramSha256("user", "pencil", nonce="rOprNGfwEbeRWgbNEkqO")


async def test_scram_sha_256_as_in_rfc_7677_section_3() -> None:
    exchange = scram()
    assert exchange.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert await exchange.answer(FIRST) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    await exchange.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    exchange.conclude()


async def test_cram_md5_as_in_rfc_2195_section_2() -> None:
    exchange = CramMd5("tim", "tanstaaftanstaaf")
    assert exchange.first() is None
    answer = await exchange.answer(b"<1896.697170952@postoffice.reston.mci.net>")
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_oauthbearer_as_in_rfc_7628_section_4() -> None:
    exchange = OAuthBearer("user@example.com", TOKEN, "server.example.com", 143)
    assert exchange.first() == (
        b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=Bearer " + TOKEN.encode() + b"\1\1"
    )


def test_xoauth2_as_google_and_microsoft_describe_it() -> None:
    assert XOAuth2("shared@example.com", "t").first() == b"user=shared@example.com\1auth=Bearer t\1\1"


def test_plain_and_external_and_an_empty_first_message() -> None:
    assert Plain("ü", "p\\ä").first() == "\0ü\0p\\ä".encode()
    assert initial(External("tim").first()) == "dGlt"
    assert initial(External().first()) == "="


async def test_login_answers_in_order_whatever_the_prompts_say() -> None:
    exchange = Login("tim", "secret")
    assert exchange.first() is None
    assert [await exchange.answer(b"Benutzer:"), await exchange.answer(b"")] == [b"tim", b"secret"]
    with pytest.raises(TransientError, match="asks for more"):
        await exchange.answer(b"PIN:")


@pytest.mark.parametrize(
    ("written", "found"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_names_are_prepared_as_in_rfc_4013_section_3(written: str, found: str) -> None:
    assert prepared(written) == found


@pytest.mark.parametrize("written", ["\u0007", "\u06271", "a\ud800", "\u0627a\u0627", "\u00ad"])
def test_what_saslprep_forbids_is_refused_without_quoting_it(written: str) -> None:
    with pytest.raises(CredentialsRefused) as caught:
        prepared(written)
    assert written not in str(caught.value)


# --- servers that break the rules ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        (b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "not one that we can use"),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "not one that we can use"),
        (b"m=ext," + FIRST, "not one that we can use"),
        (FIRST.replace(b"4096", b"1"), "outside what is safe"),
        (FIRST.replace(b"4096", b"999999999"), "outside what is safe"),
        (FIRST.replace(b"4096", b"-5"), "outside what is safe"),
        (FIRST.replace(b"4096", "٤٠٩٦".encode()), "outside what is safe"),
        (FIRST.replace(b"W22", b"\xc3\xa4"), "no base64"),
        (b"\xff", "not UTF-8"),
        (b"", "not one that we can use"),
    ],
)
async def test_a_scram_server_that_breaks_the_rules_gets_no_proof(challenge: bytes, words: str) -> None:
    with pytest.raises(TransientError, match=words):
        await scram().answer(challenge)


async def test_a_server_that_does_not_know_the_password_is_not_believed() -> None:
    exchange = scram()
    await exchange.answer(FIRST)
    with pytest.raises(TransientError, match="right server"):
        await exchange.answer(b"v=" + b64encode(b"x" * 32))
    with pytest.raises(TransientError, match="without a proof"):
        exchange.conclude()


async def test_a_server_that_says_yes_too_early_is_not_believed() -> None:
    with pytest.raises(TransientError, match="without a proof"):
        scram().conclude()


async def test_scram_tells_why_it_was_refused() -> None:
    exchange = scram()
    await exchange.answer(FIRST)
    with pytest.raises(CredentialsRefused, match="invalid-proof"):
        await exchange.answer(b"e=invalid-proof")


@pytest.mark.parametrize("line", [b"!!!", b"a" * 20000, "ä"])
def test_a_challenge_that_is_no_base64_or_too_large_is_not_looked_at(line: bytes | str) -> None:
    with pytest.raises(TransientError):
        decoded(line)


async def test_a_refused_token_is_answered_as_the_mechanism_wants_and_the_reason_is_kept() -> None:
    challenge = b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'
    for said, reason in (
        (challenge, "status 400, scope https://mail.google.com/, schemes Bearer"),
        (f"no good: {TOKEN}".encode(), "no good: ********"),
    ):
        for exchange, farewell in ((XOAuth2("u", TOKEN), b""), (OAuthBearer("u", TOKEN, "h", 1), b"\1")):
            assert await exchange.answer(said) == farewell
            assert exchange.explanation == reason


# --- which one -------------------------------------------------------------------------------------------------------
ALL = {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "GSSAPI"}


@pytest.mark.parametrize(
    ("without", "clear", "chosen"),
    [
        (set(), True, "SCRAM-SHA-256"),
        ({"SCRAM-SHA-256"}, True, "SCRAM-SHA-1"),
        ({"SCRAM-SHA-256", "SCRAM-SHA-1"}, True, "PLAIN"),
        ({"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"}, True, "LOGIN"),
        (set(), False, "SCRAM-SHA-256"),
        ({"SCRAM-SHA-256", "SCRAM-SHA-1"}, False, "CRAM-MD5"),
        ({"SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5"}, False, None),
    ],
)
def test_the_strongest_that_both_sides_have_is_chosen(without: set[str], clear: bool, chosen: str | None) -> None:
    found = by_password(ALL - without, "user", "password", clear=clear)
    assert (found and found.name) == chosen


def test_a_pinned_mechanism_is_used_whatever_is_offered() -> None:
    pinned = by_password(ALL, "u", "p", mechanism="cram-md5", clear=True)
    assert pinned is not None and pinned.name == "CRAM-MD5"
    assert by_password(set(), "u", "p", mechanism="login", clear=False) is not None
    found = by_token(ALL, "u", "t", "h", 1, mechanism="xoauth2")
    assert found is not None and found.name == "XOAUTH2"


def test_tokens_prefer_the_standard() -> None:
    chosen = [by_token(offered, "u", "t", "h", 1) for offered in (ALL, {"XOAUTH2"}, {"PLAIN"})]
    assert [one and one.name for one in chosen] == ["OAUTHBEARER", "XOAUTH2", None]


@pytest.mark.parametrize(
    "exchange",
    [
        Plain("u", "hidden-password"),
        Login("u", "hidden-password"),
        CramMd5("u", "hidden-password"),
        ScramSha256("u", "hidden-password"),
        XOAuth2("u", "hidden-password"),
        OAuthBearer("u", "hidden-password", "h", 1),
    ],
)
def test_no_exchange_shows_its_secret_and_each_names_it_for_masking(exchange: Exchange) -> None:
    assert "hidden" not in repr(exchange) + str(exchange)
    assert "hidden-password" in exchange.secrets
    first = exchange.first()
    if exchange.readable and first is not None:
        assert encoded(first) in {encoded(secret.encode()) for secret in exchange.secrets}


@pytest.mark.parametrize(
    "exchange",
    [
        Plain("u", "p"),
        Login("u", "p"),
        CramMd5("u", "p"),
        ScramSha256("u", "p"),
        XOAuth2("u", "t"),
        OAuthBearer("u", "t", "h", 1),
        External("u"),
    ],
    ids=lambda exchange: exchange.name,
)
async def test_a_server_that_never_stops_asking_is_not_answered_for_ever(exchange: Exchange) -> None:
    with pytest.raises(TransientError):
        for _ in range(5):
            await exchange.answer(b"more")
