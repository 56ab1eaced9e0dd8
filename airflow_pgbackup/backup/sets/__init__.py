"""Backup sets: the databases of a server, and which backups one run made of them.

Public are ``discover``, ``write_set`` and ``dump_set``.
"""
