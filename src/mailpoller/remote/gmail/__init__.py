"""The Gmail API as both the source and the queue use it: whose mailbox, one client, its quota, what errors mean."""
