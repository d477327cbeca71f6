"""How one keeps: durable files and directories, SQLite, the mark of a queue, and threads for what blocks."""
