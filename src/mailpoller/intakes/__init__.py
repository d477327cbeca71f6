"""Ways in for mail that is to be sent, beside the control socket."""
