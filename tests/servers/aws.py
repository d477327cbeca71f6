"""A stand-in for SQS and SNS on a free port of 127.0.0.1: moto, which holds everything in memory.

It forgets what it had when it ends. It knows no user and refuses nobody; what characters SQS does not take, it takes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from servers.children import die_with_parent
from servers.ports import await_silence, free_port

_NEEDED = ("moto", "flask", "flask_cors")
missing = "" if all(map(find_spec, _NEEDED)) else "there is no moto: pip install moto flask flask-cors"
"""Why the tests of it are skipped; else empty."""
ACCOUNT = "123456789012"


class AwsServer:
    """A context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        log = Path(tempfile.mkstemp(prefix="moto-")[1])
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, preexec_fn=die_with_parent, stdout=file, stderr=file)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, log.read_text("utf-8")
            assert self._process.poll() is None, log.read_text("utf-8")
            time.sleep(0.05)
        log.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def queue(self, name: str) -> str:
        """The URL of a queue."""
        return f"{self.url}/{ACCOUNT}/{name}"

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/moto-api/", timeout=2) as answer:  # our own server
                return bool(answer.status == 200)
        except OSError:
            return False

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
            await_silence(self.port)


def sqs(port: int | str, operation: str, **words: Any) -> dict[str, Any]:
    """What SQS answers there, asked as its JSON protocol wants it."""
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AmazonSQS.{operation}",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/sqs/aws4_request",
    }
    request = Request(f"http://127.0.0.1:{port}/", json.dumps(words).encode(), headers)  # our own server
    with urlopen(request, timeout=30) as answer:
        body = answer.read()
    found: dict[str, Any] = json.loads(body) if body else {}
    return found


def make_queue(port: int | str, name: str, **attributes: str) -> str:
    """Make a queue; its URL."""
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    sqs(port, "CreateQueue", QueueName=name, Attributes={"VisibilityTimeout": "0", **fifo, **attributes})
    return f"http://127.0.0.1:{port}/{ACCOUNT}/{name}"


_TAKEN: dict[tuple[int | str, str], dict[str, dict[str, Any]]] = {}


def messages_of(port: int | str, name: str) -> list[dict[str, Any]]:
    """All that came to a queue, in any order: what is there is taken, and remembered for the next look."""
    queue = f"http://127.0.0.1:{port}/{ACCOUNT}/{name}"
    taken = _TAKEN.setdefault((port, name), {})
    asked = {"QueueUrl": queue, "MaxNumberOfMessages": 10, "VisibilityTimeout": 43_200}
    asked |= {"MessageAttributeNames": ["All"], "AttributeNames": ["All"]}
    while several := sqs(port, "ReceiveMessage", **asked).get("Messages"):
        taken.update((one["MessageId"], one) for one in several)
    return list(taken.values())


def sns(port: int | str, operation: str, **words: str) -> str:
    """What SNS answers there, asked as its query protocol wants it."""
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/sns/aws4_request",
    }
    body = urlencode({"Action": operation, "Version": "2010-03-31", **words}).encode()
    request = Request(f"http://127.0.0.1:{port}/", body, headers)  # our own server
    with urlopen(request, timeout=30) as answer:
        found: str = answer.read().decode()
    return found


def topic_arn(name: str) -> str:
    """The ARN of a topic there."""
    return f"arn:aws:sns:eu-central-1:{ACCOUNT}:{name}"


def make_topic(port: int | str, name: str, *, queue: str | None = None) -> str:
    """Make a topic; its ARN. ``queue``: one of its name is made and subscribed, and gets what is published as it is."""
    fifo = {"Attributes.entry.1.key": "FifoTopic", "Attributes.entry.1.value": "true"} if name.endswith(".fifo") else {}
    sns(port, "CreateTopic", Name=name, **fifo)
    if queue is not None and "sqs" not in sns(port, "ListSubscriptionsByTopic", TopicArn=topic_arn(name)):
        make_queue(port, queue)
        where = {"Protocol": "sqs", "Endpoint": f"arn:aws:sqs:eu-central-1:{ACCOUNT}:{queue}"}
        raw = {"Attributes.entry.1.key": "RawMessageDelivery", "Attributes.entry.1.value": "true"}
        sns(port, "Subscribe", TopicArn=topic_arn(name), **where, **raw)
    return topic_arn(name)
