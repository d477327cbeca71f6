"""SASL (RFC 4422): one way to log in for IMAP, POP3 and SMTP, which only carry its messages in different words.

An :class:`~mailpoller.wire.sasl.exchange.Exchange` is one attempt to log in.
The protocol sends ``AUTH`` with its ``name``, then the first message (along with the command where that is allowed,
else as the answer to an empty challenge), then the answer to each challenge, all in base64 (``encoded``, ``decoded``);
where an answer raises, it sends ``*`` and then raises that.
When the server says that we are in, it calls ``conclude``.
A further mechanism is one class in ``mechanisms.py`` and one line in the table of ``choice.py``.
"""
