"""What mailboxes at a service share: being asked for news, prefetching, gaps in listings, waits that it wants."""
