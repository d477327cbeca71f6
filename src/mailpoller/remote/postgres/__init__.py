"""A PostgreSQL server as a queue and an intake use it.

``server`` is what their blocks have in common, ``connection`` connects, keeps deadlines and puts the server's errors
into words, ``line`` is one connection that is made again, ``creation`` makes tables. Only ``server`` can be imported
without the extra.
"""
