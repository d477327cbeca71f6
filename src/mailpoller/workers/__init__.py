"""Processes of their own for what may be slow or dangerous to read: a mail that kills or hangs one takes nobody with
it."""
