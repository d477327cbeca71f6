"""Take mail from a queue of type postgres, process each message once, acknowledge it. Needs: pip install psycopg

python postgres.py 'host=/run/postgresql dbname=mail' mailpoller_support      any number of them, on any machine
"""

import sys
import time

import psycopg

place, table = sys.argv[1:3]
TAKE = f"SELECT seq, delivery_id, event FROM {table} ORDER BY priority DESC, seq LIMIT 1 FOR UPDATE SKIP LOCKED"
with psycopg.connect(place, autocommit=True, prepare_threshold=None) as database:
    # Stands for the tables of your program; in the same database, so that one transaction does all.
    database.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id text PRIMARY KEY, subject text)")
    while True:
        with database.transaction():  # taken, done and acknowledged, or none of it: so it is done once
            found = database.execute(TAKE).fetchone()
            if found is not None:
                seq, delivery_id, event = found
                subject = event["data"].get("subject", "").replace("\0", "")  # PostgreSQL's text has no NUL
                database.execute("INSERT INTO ticket VALUES (%s, %s)", (delivery_id, subject))
                database.execute(f"DELETE FROM {table} WHERE seq = %s", (seq,))
        if found is None:
            time.sleep(1)  # LISTEN spares it where the queue has notify, and nothing is before the server
