"""Queues that are mail addresses: ``sink`` sends notes to them, ``lmtp`` hands the messages themselves to a delivery
agent, ``onward`` is where rules send mail on to, ``partly`` remembers who has a mail that others wait for."""

from mailpoller.sinks.smtp.lmtp import LmtpQueueConfig
from mailpoller.sinks.smtp.onward import ForwardConfig, RedirectConfig
from mailpoller.sinks.smtp.sink import SmtpQueue, SmtpQueueConfig

__all__ = ["ForwardConfig", "LmtpQueueConfig", "RedirectConfig", "SmtpQueue", "SmtpQueueConfig"]
