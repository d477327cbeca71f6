"""Blobs in a bucket: there before an event names them, as young as their last event, removed by the bucket alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.blobs.s3 import S3BlobsConfig
from mailpoller.core.component import Runtime
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import BlobReference
from mailpoller.core.spool import Octets, Spool
from mailpoller.engine.clock import SystemClock
from servers.s3 import KEY, SECRET, S3Server, at_the_store, make_bucket, missing, object_of, objects_of
from servers.web import Asked, Reply, Web

pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
needs_weed = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as started:
        make_bucket(started.port, "blobs")
        yield started


@contextlib.asynccontextmanager
async def store(url: str, state: Path, **more: Any) -> AsyncIterator[Any]:
    usual = {"bucket": "blobs", "endpoint": url, "region": "us-east-1", "durability": "declared"}
    login = {"access_key_id": KEY, "secret_access_key": SECRET}
    config = S3BlobsConfig(type="s3", **{**usual, **login, **more})
    made = config.build(Runtime(SystemClock(), Spool(state / "spool"), state))
    try:
        yield made
    finally:
        await made.close()


def referring(*several: bytes) -> tuple[list[Octets], list[BlobReference]]:
    held = [Octets.of(one) for one in several]
    return held, [BlobReference(one.digest, "support", f"id-{n}", f"mid-{n}") for n, one in enumerate(held)]


def far() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


@needs_weed
async def test_octets_are_there_when_refer_returns_and_each_once(server: S3Server, tmp_path: Path) -> None:
    octets, references = referring(b"one", b"two" * 100_000, b"one")
    async with store(server.url, tmp_path, prefix="there/") as blobs:
        await blobs.check()
        await blobs.refer(octets, references)
        names = await asyncio.to_thread(objects_of, server.port, "blobs", "there/")
        assert sorted(names) == sorted({f"there/{one.digest.hex()}" for one in octets})
        for one in octets:
            assert await asyncio.to_thread(object_of, server.port, "blobs", f"there/{one.digest.hex()}") == one.view()
            assert blobs.href(one.digest) == f"s3://blobs/there/{one.digest.hex()}"
        idle = await blobs.idle(far(), limit=10)
        assert {one.sha256: len(one.references) for one in idle} == {octets[0].digest: 2, octets[1].digest: 1}
    async with store(server.url, tmp_path, prefix="there/", href="https://files.example.com/") as blobs:
        assert blobs.href(b"\0") == "https://files.example.com/00"
        assert len(await blobs.idle(far(), limit=10)) == 2, "and is known after a restart"


@needs_weed
async def test_what_is_referred_to_again_or_spared_is_young_again(server: S3Server, tmp_path: Path) -> None:
    def age() -> Any:
        name = f"young/{octets[0].digest.hex()}"
        return at_the_store(server.port, lambda s3: s3.head_object(Bucket="blobs", Key=name))["LastModified"]

    octets, references = referring(b"young")
    async with store(server.url, tmp_path, prefix="young/") as blobs:
        seen = []
        for work in (lambda: blobs.refer(octets, references), lambda: blobs.spare([octets[0].digest])) * 2:
            await work()
            seen.append(await asyncio.to_thread(age))
            await asyncio.sleep(1.1)  # LastModified has whole seconds
        assert sorted(set(seen)) == seen
        before = datetime.now(UTC) - timedelta(days=1)
        assert await blobs.idle(before, limit=10) == []


@needs_weed
async def test_nothing_is_removed_by_us_and_what_somebody_removed_is_there_again_when_it_is_named_again(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    octets, references = referring(b"kept")
    name = f"kept/{octets[0].digest.hex()}"
    async with store(server.url, tmp_path, prefix="kept/") as blobs:
        await blobs.refer(octets, references)
        assert await blobs.remove([octets[0].digest], far()) == 0
        assert await blobs.idle(far(), limit=10) == []
        assert await asyncio.to_thread(objects_of, server.port, "blobs", "kept/") == [name]
        at_the_store(server.port, lambda s3: s3.delete_object(Bucket="blobs", Key=name))
        await blobs.spare([octets[0].digest])
        await blobs.refer(octets, references)
        assert await asyncio.to_thread(objects_of, server.port, "blobs", "kept/") == [name]


@needs_weed
async def test_a_store_that_is_away_or_refuses_us_is_told_and_nothing_is_noted(tmp_path: Path) -> None:
    octets, references = referring(b"x")
    with S3Server() as server:
        make_bucket(server.port, "blobs")
        for more, said in (
            ({"bucket": "nowhere"}, "NoSuchBucket"),
            ({"secret_access_key": "wrong-wrong"}, "SignatureDoesNotMatch"),
            ({"durability": "strict"}, "durability: declared"),
        ):
            async with store(server.url, tmp_path, **more) as blobs:
                for call in (blobs.check(), blobs.refer(octets, references)):
                    with pytest.raises(TransientError, match=said) as caught:
                        await call
                    assert SECRET not in str(caught.value)
        async with store(server.url, tmp_path, timeout=timedelta(seconds=2)) as blobs:
            await blobs.check()
            server.freeze()
            try:
                with pytest.raises(TransientError, match="no answer within"):
                    await blobs.refer(octets, references)
            finally:
                server.thaw()
            server.kill()
            with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
                await blobs.refer(octets, references)
            assert await blobs.idle(far(), limit=10) == []


# --- scripted ---------------------------------------------------------------------------------------------------


def rules(*several: str) -> Reply:
    body = "".join(f"<Rule>{one}</Rule>" for one in several)
    return Reply(body=f"<LifecycleConfiguration>{body}</LifecycleConfiguration>".encode())


def rule(days: int, where: str = "<Filter><Prefix></Prefix></Filter>", status: str = "Enabled") -> str:
    return f"<ID>old</ID>{where}<Status>{status}</Status><Expiration><Days>{days}</Days></Expiration>"


def error(code: str, status: int) -> Reply:
    return Reply(status, f"<Error><Code>{code}</Code><Message>so it is</Message></Error>".encode())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (rules(rule(37)), ""),
        (rules(rule(36)), "after 36 days.*are 37"),
        (rules(rule(90), rule(5, "<Filter><Prefix>mail/</Prefix></Filter>")), "after 5 days"),
        (rules(rule(5, "<Prefix>mail/blobs/x</Prefix>")), "after 5 days"),
        (rules(rule(5, "<Filter><Prefix>other/</Prefix></Filter>")), ""),
        (rules(rule(5, "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>")), ""),
        (rules(rule(5, status="Disabled")), ""),
        (
            rules("<ID>then</ID><Status>Enabled</Status><Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration>"),
            "then",
        ),
        (error("NoSuchLifecycleConfiguration", 404), ""),
        (error("NotImplemented", 501), ""),
        (error("AccessDenied", 403), "AccessDenied"),
    ],
)
async def test_a_rule_of_the_bucket_that_removes_too_soon_is_told_before_anything_is_named(
    answer: Reply, said: str, tmp_path: Path
) -> None:
    put: list[str] = []

    def says(asked: Asked) -> Reply:
        if "lifecycle" in asked.target:
            return answer
        if asked.method == "PUT":
            put.append(asked.path)
            return Reply()
        return Reply(body=b"<ListBucketResult/>", headers={"content-type": "application/xml"})

    async with Web(says) as web, store(web.url, tmp_path, prefix="mail/blobs/") as blobs:
        calls: Sequence[Any] = (blobs.refer(*referring(b"x")), blobs.check(), blobs.tidy())
        for call in calls:
            if said:
                with pytest.raises(TransientError, match=said):
                    await call
            else:
                await call
    assert len(put) == (0 if said else 1)


def test_a_block_of_blobs_that_cannot_work_is_refused() -> None:
    usual = {"type": "s3", "bucket": "blobs", "region": "us-east-1", "instance_role": True}
    for more, said in (({"keep": "23h"}, "keep"), ({"href": "files/"}, "href"), ({"prefix": "x"}, "prefix")):
        with pytest.raises(ValidationError, match=said):
            S3BlobsConfig.model_validate({**usual, **more})
    assert S3BlobsConfig.model_validate(usual).base == "s3://blobs/"
