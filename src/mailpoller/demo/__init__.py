"""The demonstration: a small loopback mail server, telling messages, and a configuration that polls them.

``mailpoller demo`` is the only user. Nothing here is imported by the daemon, and the mail server needs the extra
``demo``.
"""
