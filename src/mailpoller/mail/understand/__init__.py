"""What a mail is and what it says, beyond its syntax: pure functions over what the parser read."""
