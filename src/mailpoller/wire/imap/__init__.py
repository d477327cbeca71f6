"""IMAP as a client speaks it (RFC 3501, RFC 9051), on aioimaplib: for who fetches mail, and who puts it there."""
