"""From YAML to checked configuration."""
