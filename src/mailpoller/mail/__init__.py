"""RFC knowledge, without input or output."""
