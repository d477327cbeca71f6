"""How mail is sent: plug-ins, one file each."""
