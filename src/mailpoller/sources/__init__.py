"""How mailboxes are reached: plug-ins, one file or folder each."""
