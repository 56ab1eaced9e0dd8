"""The one door through which a script from outside reaches psql.

psql is the only parser of a script that counts. It ends a comment at a carriage return, COPY data at ``\\.`` before CR
LF, a string by settings that the server reports to it, and a character by the client's encoding; a lexer of ours sees
other commands than psql does. So nothing here relies on anybody having looked into the script:

* psql is in restricted mode from its first line on, by a random key of ours. It then refuses every command but
  ``\\unrestrict``, which needs the key. https://www.postgresql.org/docs/current/app-psql.html, CVE-2025-8714
* The kernel refuses it to start processes: psql evaluates backticks on the way to ``\\unrestrict``, too.
* It reads no psqlrc and has no terminal; the environment is ours
  (:mod:`airflow_pgbackup.postgres.connection.environment`). What ``:name`` inserts into SQL are
  psql's own variables, such as ``:DBNAME``; none holds a secret.

The commands that a dump has for good reasons are for whoever cuts it: they are left out, and obeyed from outside. See
:class:`airflow_pgbackup.postgres.psql.script_filter.ScriptFilter`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from airflow_pgbackup.byte_streams import PrefixedReader, Readable
from airflow_pgbackup.postgres.tools.clients import Client

_KEY_BYTES = 32


@dataclass(frozen=True)
class GuardedPsql:
    """Arguments for :class:`~airflow_pgbackup.postgres.tools.process.ToolProcess` (``may_start_processes=False``).

    :ivar argv: the program and its arguments; without the connection, which the environment has.
    :ivar stdin: the script behind our own ``\\restrict``.
    """

    argv: list[str]
    stdin: Readable


def guarded(client: Client, script: Readable, *, single_transaction: bool = False) -> GuardedPsql:
    """Return how psql runs a script, up to its first error.

    :param client: from :func:`airflow_pgbackup.postgres.tools.client_choice.choose_psql`.
    :param script: without psql's commands; what is left of them is an error in it.
    """
    argv = [str(client.tool("psql")), "--no-password", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    argv += ["--single-transaction"] * single_transaction + ["--file=-"]
    restrict = f"\\restrict {secrets.token_hex(_KEY_BYTES)}\n"  # nobody else knows the key
    return GuardedPsql(argv, PrefixedReader(restrict.encode(), script))
