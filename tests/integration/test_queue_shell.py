"""The lines for the shell on the page for consumers do what they say, with SQLite's own program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from mailpoller.testing.deliveries import make_delivery
from servers import programs
from unit.test_queue_docs import blocks, count
from unit.test_queue_docs import path as path


async def test_the_lines_for_the_shell_do_what_they_say(path: Path) -> None:
    programs.find("sqlite3")
    consume, look = (block.replace("/var/lib/mailpoller/queue/support.db", str(path)) for block in blocks("bash"))
    shown = subprocess.run(["bash", "-euc", look], capture_output=True, text=True, check=True).stdout
    assert make_delivery(3).delivery_id in shown
    assert "mailpoller.message|3" in shown
    event = subprocess.run(["bash", "-euc", consume], capture_output=True, text=True, check=True).stdout
    assert json.loads(event)["deliveryid"] == make_delivery(3).delivery_id
    assert (count(path, "message"), count(path, "acknowledged")) == (2, 1)
