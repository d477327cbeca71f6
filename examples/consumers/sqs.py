"""Take mail from a queue of type sqs, process each message once, acknowledge it. Needs: pip install boto3

python sqs.py https://sqs.eu-central-1.amazonaws.com/123456789012/mail      any number of them, on any machine
"""

import json
import sqlite3
import sys

import boto3


def main(queue: str) -> None:
    tickets = sqlite3.connect("tickets.db")  # stands for the database of your program
    tickets.execute("CREATE TABLE IF NOT EXISTS ticket (delivery_id TEXT PRIMARY KEY, subject TEXT)")
    sqs = boto3.client("sqs")
    while True:
        # What is not acknowledged within the queue's visibility time-out is handed out again.
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20).get("Messages", [])
        with tickets:  # a repeat is known by its delivery id
            for message in messages:
                event = json.loads(message["Body"])
                row = (event["deliveryid"], event["data"].get("subject"))
                tickets.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?)", row)
        for message in messages:  # only now
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main(sys.argv[1])
