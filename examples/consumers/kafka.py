"""Take mail from a queue of type kafka, process each message once, commit. Needs: pip install confluent-kafka

python kafka.py kafka.example.com:9092 mail      as many of them as the topic has partitions, on any machine
"""

import json
import sqlite3
import sys

from confluent_kafka import Consumer

servers, topic = sys.argv[1:3]
tickets = sqlite3.connect("tickets.db")  # stands for the database of your program
tickets.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id TEXT PRIMARY KEY, subject TEXT)")
consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "group.id": "helpdesk",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([topic])
while True:
    messages = [one for one in consumer.consume(50, timeout=5) if one.error() is None]
    with tickets:  # a repeat is known by its key, the delivery id
        for one in messages:
            subject = json.loads(one.value())["data"].get("subject", "")
            tickets.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", (one.key().decode(), subject))
    if messages:
        consumer.commit(asynchronous=False)  # only now
