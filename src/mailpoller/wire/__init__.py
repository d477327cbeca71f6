"""How one talks to a server: reaching it, TLS, proxies, logging in, and what HTTP and SMTP are to a client."""
