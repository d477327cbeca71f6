"""What judges messages: plug-ins, one file each."""
