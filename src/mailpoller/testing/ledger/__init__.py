"""The promises of a ledger, a file for each subject."""
