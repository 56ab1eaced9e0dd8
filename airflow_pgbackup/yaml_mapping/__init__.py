"""YAML files that users write: read with the line of every value, and all problems reported at once."""
