"""A queue that is a program: ``config`` is its block, ``sink`` asks the program for its word, ``verdict`` says what an
exit code means, ``process`` runs one program and leaves nothing of it behind."""

from mailpoller.sinks.command.config import CommandQueueConfig

__all__ = ["CommandQueueConfig"]
