"""The parts of the Gmail source that need no server: configuration, quota, positions, errors, and the message inside
its JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailpoller.core.message import Position
from mailpoller.core.ports import Start
from mailpoller.core.spool import Spool
from mailpoller.remote.gmail.errors import Denied, Missing, decided, is_throttled, may_pass, wish_of
from mailpoller.remote.gmail.quota import BURST, PER_MINUTE, Quota, quota_for
from mailpoller.remote.throttle import Busy
from mailpoller.sources.gmail import GmailConfig
from mailpoller.sources.gmail.encoded import EncodedIntake, Malformed
from mailpoller.sources.gmail.listing import Bookmark
from mailpoller.sources.gmail.looking import instant
from mailpoller.wire.http import HttpStatus, error_of

PERSON = {
    "type": "oauth2", "provider": "google", "grant": "refresh_token", "client_id": "x", "client_secret": "env:S",
    "refresh_token": "env:R"
}  # fmt: skip
SERVICE = {"type": "oauth2", "provider": "google", "grant": "service_account", "service_account": "/etc/key.json"}
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def config(**settings: Any) -> GmailConfig:
    return GmailConfig.model_validate({"type": "gmail", "auth": PERSON, **settings})


# --- configuration ---------------------------------------------------------------------------------------------
def test_shortest_block_polls_the_inbox_of_whoever_said_yes() -> None:
    made = config()
    assert (made.user, made.folders, made.host) == ("me", ["INBOX"], "gmail.googleapis.com")
    assert made.auth.terms("gmail", made.user).scopes == ("https://www.googleapis.com/auth/gmail.modify",)


def test_service_account_acts_for_the_user_of_the_mailbox() -> None:
    made = config(auth=SERVICE, user="support@example.com")
    assert made.auth.terms("gmail", made.user).owner == "support@example.com"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"auth": SERVICE}, "user"),
        ({"auth": {**SERVICE, "provider": None}, "user": "a@example.com"}, "provider: google"),
        ({"auth": {**PERSON, "provider": "microsoft"}}, "google"),
        ({"user": "support"}, "address"),
        ({"user": "a/../b@example.com"}, "address"),
        ({"url": "http://gmail.example.com"}, "http"),
        ({"url": "https://gmail.googleapis.com/gmail/v1"}, "URL"),
        ({"url": "https://user@gmail.googleapis.com"}, "URL"),
        ({"folders": []}, "folders"),
        ({"folders": ["INBOX", "inbox"]}, "twice"),
        ({"folders": ["a//b"]}, "path"),
        ({"disposition": {"flag": "\\Answered"}}, "Answered"),
        ({"disposition": {"move": "Sent"}}, "SENT"),
        ({"disposition": {"move": "x" * 300}}, "225"),
        ({"on_discard": {"flag": "UNREAD"}}, "UNREAD"),
        ({"disposition": "delete", "folders": ["Trash"]}, "trash"),
        ({"notice_interval": "1ms"}, "100ms"),
        ({"ca_file": "/etc/ca.pem", "pin": "ab" * 32}, "exclude"),
    ],
)
def test_block_that_cannot_work_is_refused_with_the_reason(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    assert word in str(caught.value)


# --- the message inside its JSON -------------------------------------------------------------------------------
def taken(spool: Spool, pieces: Sequence[bytes], limit: int = 1 << 20) -> tuple[bytes, EncodedIntake]:
    intake = EncodedIntake(spool, limit)
    for piece in pieces:
        intake.write(piece)
        if intake.overflowed:
            break
    octets = intake.finish()
    try:
        return bytes(octets.view()), intake
    finally:
        octets.close()


def divided(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[begin:end] for begin, end in pairwise(places)]


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    made = Spool(tmp_path_factory.mktemp("spool"), threshold=256)
    made.prepare()
    return made


@given(
    octets=st.binary(max_size=600),
    cuts=st.lists(st.integers(0, 2_000), max_size=12),
    escapes=st.booleans(),
    padded=st.booleans(),
    indent=st.sampled_from([None, 2]),
    last=st.booleans(),
)
def test_message_comes_out_bit_for_bit_however_the_answer_is_cut(
    spool: Spool, octets: bytes, cuts: list[int], escapes: bool, padded: bool, indent: int | None, last: bool
) -> None:
    text = base64.urlsafe_b64encode(octets).decode()
    beside = {
        "id": "18f",
        "snippet": 'a \\"raw\\": "no" {[',
        "raw2": "x",
        "more": {"raw": "bm8="},
        "labelIds": ["raw", ":", "INBOX"],
    }
    raw = {"raw": text if padded else text.rstrip("=")}
    body = json.dumps({**beside, **raw} if last else {**raw, **beside}, indent=indent).encode()
    if escapes:
        body = body.replace(b"=", b"\\u003d").replace(b"-", b"\\u002D")
    had, intake = taken(spool, divided(body, cuts))
    assert had == octets
    assert {**intake.facts(), "raw": ""} == {**beside, "raw": ""}


@given(size=st.integers(0, 2_000), limit=st.integers(0, 2_000), cuts=st.lists(st.integers(0, 4_000), max_size=6))
def test_limit_is_exact_and_what_overflows_is_told(spool: Spool, size: int, limit: int, cuts: list[int]) -> None:
    octets = (b"0123456789abcdef" * 125)[:size]
    body = b'{"raw":"' + base64.urlsafe_b64encode(octets) + b'"}'
    had, intake = taken(spool, divided(body, cuts), limit)
    assert had == octets[:limit]
    assert intake.overflowed is (size > limit)


@given(body=st.binary(max_size=300))
def test_any_other_octets_are_malformed_and_nothing_else(spool: Spool, body: bytes) -> None:
    intake = EncodedIntake(spool, 1 << 20)
    try:
        for piece in divided(body, [7, 31]):
            intake.write(piece)
        intake.facts()
    except Malformed:
        pass
    else:
        assert json.loads(body)["raw"] is not None
    finally:
        intake.abort()


@pytest.mark.parametrize(
    ("told", "meant"),
    [("1772368200000", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)), ("x", None), (None, None), ("9" * 40, None), ("-1",
    datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC))],
)  # fmt: skip
def test_internal_date_is_milliseconds_or_nothing(told: object, meant: datetime | None) -> None:
    assert instant(told) == meant


# --- positions -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("start", [None, Start("now"), Start("since", NOW)])
def test_position_is_read_as_it_was_written(start: Start | None) -> None:
    bookmark = Bookmark("123", NOW, start)
    assert Bookmark.read(bookmark.write()) == bookmark


@pytest.mark.parametrize(
    "position",
    ["", "7", "null", "{}", '{"history": "1", "at": '
                            '"2026-01-01T00:00:00"}', '{"history": "-1", "at": "2026-01-01T00:00:00+00:00"}',
     '{"history": "1", "at": "2026-01-01T00:00:00+00:00", "start": "some"}'],
)  # fmt: skip
def test_foreign_position_is_none(position: str) -> None:
    assert Bookmark.read(Position(position)) is None


# --- quota and errors ------------------------------------------------------------------------------------------
class Tick:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.mark.parametrize("units", [1, 2, 5, 50])
async def test_no_minute_holds_more_units_than_the_service_gives(units: int) -> None:
    clock = Tick()
    quota = Quota(clock)
    spent: list[float] = []
    while clock.at < 1_180:
        await quota.take(units)
        spent.append(clock.at)
    per_minute = [sum(units for other in spent if at <= other < at + 60) for at in spent[:: max(1, len(spent) // 50)]]
    assert max(per_minute) <= PER_MINUTE
    assert max(per_minute) > PER_MINUTE * 0.98


async def test_quiet_mailbox_may_spend_a_burst_at_once() -> None:
    clock = Tick()
    quota = Quota(clock)
    for _ in range(int(BURST) // 5):
        await quota.take(5)
    assert clock.at == 1_000


async def test_refusals_without_a_time_double_the_pause_until_the_service_serves_again() -> None:
    quota = Quota(Tick())
    first, second, third = (quota.throttled(None) for _ in range(3))
    assert 0.8 <= first <= 1.2 < 1.6 <= second <= 2.4 < 3.2 <= third <= 4.8
    quota.served()
    assert quota.throttled(None) <= 1.2


async def test_long_pause_is_left_to_the_engine_for_everybody_who_asks() -> None:
    clock = Tick()
    quota = Quota(clock)
    quota.throttled(timedelta(minutes=5))
    with pytest.raises(Busy) as caught:
        await quota.take(1)
    assert caught.value.retry_after == timedelta(minutes=5)
    clock.at += 300
    await quota.take(1)


def test_mailboxes_of_one_user_share_a_quota_and_others_do_not() -> None:
    clock = Tick()
    one = quota_for("https://gmail.googleapis.com", "A@example.com", clock)
    assert quota_for("https://gmail.googleapis.com", "a@example.com", clock) is one
    assert quota_for("https://gmail.googleapis.com", "b@example.com", clock) is not one


@pytest.mark.parametrize(
    ("status", "code", "kind", "throttled", "passes"),
    [
        (429, "rateLimitExceeded", Busy, True, True),
        (403, "userRateLimitExceeded", Busy, True, True),
        (403, "rateLimitExceeded", Busy, True, True),
        (403, "dailyLimitExceeded", Busy, True, True),
        (403, "insufficientPermissions", Denied, False, False),
        (403, "", HttpStatus, False, True),
        (400, "failedPrecondition", Denied, False, False),
        (404, "notFound", Missing, False, False),
        (500, "backendError", HttpStatus, False, True),
        (503, "backendError", Busy, True, True),
    ],
)
def test_error_is_a_decision(status: int, code: str, kind: type[Exception], throttled: bool, passes: bool) -> None:
    error = HttpStatus("x", status=status, code=code)
    assert (type(decided(error)), is_throttled(error), may_pass(error)) == (kind, throttled, passes)


@pytest.mark.parametrize(
    ("error", "wish"),
    [
        (HttpStatus("x", status=429, retry_after=timedelta(seconds=7)), timedelta(seconds=7)),
        (HttpStatus("x", status=429, words="Retry after 2026-11-22T12:01:00.000Z"), timedelta(minutes=1)),
        (HttpStatus("x", status=429, words="Retry after 2026-11-22T11:00:00Z"), timedelta(0)),
        (HttpStatus("x", status=429, words="Retry after 2026-99-22T11:00:00Z"), None),
        (HttpStatus("x", status=403, code="dailyLimitExceeded"), timedelta(minutes=15)),
        (HttpStatus("x", status=429), None),
    ],
)
def test_wish_is_found_in_the_header_or_in_the_words(error: HttpStatus, wish: timedelta | None) -> None:
    assert wish_of(error, NOW) == wish


@pytest.mark.parametrize(
    "more",
    [
        {"errors": [{"domain": "usageLimits", "reason": "rateLimitExceeded"}]},
        {"details": [{"@type": "help"}, {"@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "rateLimitExceeded"}]},
    ],
)  # fmt: skip
def test_googles_reason_is_told_before_its_status(more: dict[str, Any]) -> None:
    body = json.dumps({"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED", **more}}).encode()
    assert error_of(body) == ("rateLimitExceeded", "no")
