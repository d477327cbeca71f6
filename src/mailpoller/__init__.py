"""mailpoller: from mailboxes to durable queues, whatever happens."""

__version__ = "0.1.0"
