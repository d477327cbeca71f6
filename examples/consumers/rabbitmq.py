"""Take mail from a queue of type rabbitmq, process each message once, acknowledge it. Needs: pip install aio-pika

python rabbitmq.py amqp://user:password@localhost/ support      any number of them, on any machine
"""

import asyncio
import json
import sqlite3
import sys

import aio_pika


async def main(url: str, name: str) -> None:
    tickets = sqlite3.connect("tickets.db")  # stands for the database of your program
    tickets.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id TEXT PRIMARY KEY, subject TEXT)")
    connection = await aio_pika.connect_robust(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=50)
    queue = await channel.get_queue(name)  # it is there, and is not made anew
    async with queue.iterator() as messages:
        async for message in messages:
            subject = json.loads(message.body)["data"].get("subject", "")
            with tickets:  # a repeat is known by its delivery id
                tickets.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", (message.message_id, subject))
            await message.ack()  # only now


asyncio.run(main(*sys.argv[1:]))
