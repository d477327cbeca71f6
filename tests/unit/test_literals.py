"""The literals of the configuration mean the same wherever they are written."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from mailpoller.core.literals import MailAddress, MailAddresses


@pytest.mark.parametrize(
    "written",
    ["ops@example.com", '"ops"@example.com', "ops+mail@[192.0.2.1]", "ops@[IPv6:2001:db8::1]", "büro@grün.example"],
)
def test_a_mail_address_is_taken_as_it_is_written(written: str) -> None:
    assert TypeAdapter(MailAddress).validate_python(written) == written


@pytest.mark.parametrize(
    "written",
    [
        "ops", "@example.com", "ops@", "ops@example@com", "Ops <ops@example.com>", "a@example.com,b@example.com",
        "ops @example.com", "ops@example.com\n", "ops@example.com\r\nBcc: eve@example.com", "ops@example.com\x00",
        "mailto:ops@example.com", '"ops@example.com"',
    ],
)  # fmt: skip
def test_what_is_more_or_less_than_one_mail_address_is_refused(written: str) -> None:
    with pytest.raises(ValidationError, match="a mail address is written alone"):
        TypeAdapter(MailAddress).validate_python(written)


def test_one_mail_address_needs_no_list_and_an_empty_list_is_none() -> None:
    addresses = TypeAdapter(MailAddresses)
    assert addresses.validate_python("ops@example.com") == ["ops@example.com"]
    with pytest.raises(ValidationError):
        addresses.validate_python([])
