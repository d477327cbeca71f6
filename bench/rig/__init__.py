"""What the benchmarks share: a server, messages, a far line, measured processes, tables."""
