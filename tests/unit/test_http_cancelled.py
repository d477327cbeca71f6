"""Requests that are cancelled, at whatever moment, take nothing from those that come after them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from mailpoller.wire.http import HttpClient, HttpSilence
from servers.web import Reply, Web, script


async def test_cancelled_requests_leave_their_places_to_later_ones() -> None:
    async with Web(script(Reply(200, b"x", pause=0.01))) as web:
        client = HttpClient(web.url, connections=2, timeout=timedelta(seconds=1))
        for number in range(30):
            asked = [asyncio.create_task(client.request("GET", "/a", doing="list things")) for _ in range(5)]
            await asyncio.sleep(0.002 * (number % 12))
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        async with asyncio.timeout(3):
            several = await asyncio.gather(*(client.request("GET", "/a", doing="list things") for _ in range(6)))
        assert [answer.status for answer in several] == [200] * 6
        await client.close()


async def test_no_more_connections_than_were_allowed_and_who_waits_too_long_is_told() -> None:
    async with Web(script(Reply(200, b"x", pause=1.5))) as web:
        client = HttpClient(web.url, connections=1, timeout=timedelta(seconds=0.3))
        asked = [asyncio.create_task(client.request("POST", "/a", doing="list things")) for _ in range(6)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in told} == {HttpSilence}
        assert any("no connection became free" in str(one) for one in told)
        assert web.connections <= 5
        await client.close()


async def test_a_connection_serves_one_after_the_other_and_is_kept() -> None:
    async with Web(script(Reply(200, b"x"))) as web:
        client = HttpClient(web.url, connections=1)
        for _ in range(3):
            await asyncio.gather(*(client.request("GET", "/a", doing="list things") for _ in range(4)))
        assert web.connections == 1
        await client.close()
        assert len(web.asked) == 12
