"""The promises of a sink, a file for each subject."""
