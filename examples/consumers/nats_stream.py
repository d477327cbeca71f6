"""Take mail from a queue of type nats, process each message once, acknowledge it. Needs: pip install nats-py

python nats_stream.py nats://localhost:4222 MAIL      any number of them, on any machine
"""

import asyncio
import json
import sqlite3
import sys

import nats


async def main(server: str, stream: str) -> None:
    tickets = sqlite3.connect("tickets.db")  # stands for the database of your program
    tickets.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id TEXT PRIMARY KEY, subject TEXT)")
    client = await nats.connect(server)
    waiting = await client.jetstream().pull_subscribe("", durable="tickets", stream=stream)
    while True:
        try:
            messages = await waiting.fetch(50, timeout=30)
        except nats.errors.TimeoutError:
            continue  # there was nothing
        with tickets:  # a repeat is known by its delivery id
            for message in messages:
                event = json.loads(message.data)
                row = (event["deliveryid"], event["data"].get("subject"))
                tickets.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", row)
        for message in messages:  # only now
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
