"""Where the octets lie that events refer to."""
