"""Wires that several plug-ins share."""
