"""Who edits a file into something that is no YAML still reaches the daemon that runs with what was there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.config.glimpse import control_socket


@pytest.mark.parametrize(
    "service",
    [
        "service:\n  control_socket: /run/here\n",
        "service:\n  state_directory: /x\n  control_socket: '/run/here'  # by hand\n",
        "service: {state_directory: /x, control_socket: /run/here}\n",
        "service: {control_socket: /run/here, state_directory: /x}\n",
    ],
)
@pytest.mark.parametrize("rest", ["", "mailboxes: {x: \n", "mailboxes:\n\t- broken\n"])
def test_the_socket_is_found_in_a_file_that_cannot_be_used(tmp_path: Path, service: str, rest: str) -> None:
    path = tmp_path / "mailpoller.yaml"
    path.write_text(service + rest, "utf-8")

    assert control_socket(path) == Path("/run/here")


def test_a_file_that_names_none_means_the_usual_one(tmp_path: Path) -> None:
    path = tmp_path / "mailpoller.yaml"
    path.write_text("mailboxes: {x: \n", "utf-8")

    assert control_socket(path) == Path("/run/mailpoller/control.sock")
