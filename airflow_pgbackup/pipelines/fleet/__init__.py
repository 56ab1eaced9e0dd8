"""From a mapping of servers to one DAG for each.

- :mod:`.yaml_file`: read YAML with the line of each value.
- :mod:`.model`: the schema.
- :mod:`.read`: all problems at once, or the servers with their settings.
- :mod:`.problem`: a problem as a line.
"""
