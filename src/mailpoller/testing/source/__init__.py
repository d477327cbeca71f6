"""The promises of a source, a file for each subject."""
