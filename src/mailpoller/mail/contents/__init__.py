"""Readers of what may be slow or dangerous to read. They run in a worker process; each is bounded all the same."""
