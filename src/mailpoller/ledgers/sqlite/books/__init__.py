"""The ledger's ports, a book for each; together they are the ledger."""
