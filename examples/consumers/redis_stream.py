"""Take mail from a queue of type redis, process each message once, acknowledge it. Needs: pip install redis

python redis_stream.py redis://localhost:6379 '{mailpoller:support}'      any number of them, on any machine
"""

import json
import os
import socket
import sqlite3
import sys

import redis

url, stream = sys.argv[1:3]
group, consumer = "helpdesk", f"{socket.gethostname()}-{os.getpid()}"
queue = redis.Redis.from_url(url)
tickets = sqlite3.connect("tickets.db")  # stands for the database of your program
tickets.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id TEXT PRIMARY KEY, subject TEXT)")
try:
    queue.xgroup_create(stream, group, id="0", mkstream=True)
except redis.ResponseError:
    pass  # it is there
while True:
    # First what another one took and has not acknowledged within five minutes, then what nobody took.
    entries = queue.xautoclaim(stream, group, consumer, min_idle_time=300_000, count=10)[1]
    if not entries:
        found = queue.xreadgroup(group, consumer, {stream: ">"}, count=10, block=5000)
        entries = [entry for _, some in found or [] for entry in some]
    for number, fields in entries:
        subject = json.loads(fields[b"event"])["data"].get("subject", "")
        with tickets:  # the work, and that it is done, in one transaction: so it is done once
            tickets.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", (fields[b"deliveryid"].decode(), subject))
        with queue.pipeline() as both:  # only now
            both.xack(stream, group, number).xdel(stream, number).execute()
