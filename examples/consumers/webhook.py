"""Takes mailpoller's webhooks: verify, process once, acknowledge. Nothing but Python's standard library.

WEBHOOK_SECRET=whsec_... python webhook.py PORT SEEN.db        (behind a proxy that speaks HTTPS)
"""

import base64
import hmac
import json
import os
import sqlite3
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
DATABASE = sqlite3.connect(sys.argv[2])
DATABASE.execute("CREATE TABLE IF NOT EXISTS ticket (deliveryid TEXT PRIMARY KEY, subject TEXT)")


class Consumer(BaseHTTPRequestHandler):
    def do_POST(self):
        status = self.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(status)  # only now: whatever is not acknowledged comes again
        self.end_headers()

    def take(self, body):
        name, at = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "")
        digest = hmac.new(KEY, f"{name}.{at}.".encode() + body, "sha256").digest()
        expected = "v1," + base64.b64encode(digest).decode()
        signatures = self.headers.get("webhook-signature", "").split()
        if not any(hmac.compare_digest(expected, one) for one in signatures) or abs(time.time() - int(at)) > 300:
            return 401
        event = json.loads(body)
        with DATABASE:  # the id and what is made of the message are committed together, or not at all
            row = (event["deliveryid"], event["data"].get("subject"))
            DATABASE.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", row)
        return 204


HTTPServer(("127.0.0.1", int(sys.argv[1])), Consumer).serve_forever()
