"""What queues are: plug-ins, one file each."""
