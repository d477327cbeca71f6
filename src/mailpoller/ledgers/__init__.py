"""Durable records: plug-ins, one file or folder each."""
