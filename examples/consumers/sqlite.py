"""Take mail from a queue of type sqlite, process each message once, acknowledge it. Needs nothing but Python.

python sqlite.py /var/lib/mailpoller/queue/support.db tickets.db      any number of them, on this machine
"""

import json
import sqlite3
import sys
import time
import uuid

path, tickets = sys.argv[1:3]
TAKE = """
UPDATE message SET taken_until = :until, taker = 'example', lease = :lease, attempts = attempts + 1
WHERE seq IN (SELECT seq FROM message WHERE taken_until <= :now ORDER BY priority DESC, seq LIMIT 10)
RETURNING delivery_id, (SELECT event FROM content WHERE content.seq = message.seq)
"""
DONE = "DELETE FROM message WHERE delivery_id = ? AND lease = ?"
queue = sqlite3.connect(path, isolation_level=None, timeout=30)
# Stands for the tables of your program, in whatever database it has.
mine = sqlite3.connect(tickets, timeout=30)
mine.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id TEXT PRIMARY KEY, subject TEXT)")
while True:
    now, lease = time.time(), uuid.uuid4().hex
    # For five minutes they are ours; if we die, the next one takes them then.
    taken = queue.execute(TAKE, {"now": now, "until": now + 300, "lease": lease}).fetchall()
    for delivery_id, event in taken:
        with mine:  # done, and known to be done, in one transaction; who comes second does nothing
            subject = json.loads(event)["data"].get("subject", "")
            mine.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", (delivery_id, subject))
        queue.execute(DONE, (delivery_id, lease))
    if not taken:
        time.sleep(1)
