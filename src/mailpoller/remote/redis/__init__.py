"""A Redis or Valkey server as a queue and an intake use it.

``server`` is what their blocks have in common, ``client`` connects and puts the server's errors into words. Only
``server`` can be imported without the extra.
"""
