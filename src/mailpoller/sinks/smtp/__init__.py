"""A queue that is a mail address: ``sink`` sends to it, ``partly`` remembers who has a mail that others wait for."""

from mailpoller.sinks.smtp.sink import SmtpQueue, SmtpQueueConfig

__all__ = ["SmtpQueue", "SmtpQueueConfig"]
