"""What the daemon does, in terms of ports only."""
