"""A source, a queue type and a rule type of a package of their own."""
