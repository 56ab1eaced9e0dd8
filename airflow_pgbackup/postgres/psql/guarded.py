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
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_pgbackup.byte_streams import PrefixedReader, Readable
from airflow_pgbackup.errors import ClientError
from airflow_pgbackup.postgres.tools import seccomp
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR, RESTRICT_SINCE, has_restrict, since_text
from airflow_pgbackup.postgres.tools.clients import Client, where_to_get

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

    :param client: from :func:`choose_psql`.
    :param script: without psql's commands; what is left of them is an error in it.
    """
    argv = [str(client.tool("psql")), "--no-password", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    argv += ["--single-transaction"] * single_transaction + ["--file=-"]
    restrict = f"\\restrict {secrets.token_hex(_KEY_BYTES)}\n"  # nobody else knows the key
    return GuardedPsql(argv, PrefixedReader(restrict.encode(), script))


def choose_psql(clients: Iterable[Client], server_major: int) -> Client:
    """Return the client of the server's own major version, else the newest, whose psql can be restricted.

    :param clients: newest first.
    :raises ClientError: none of them.
    :raises ConfigurationError: this machine cannot keep psql from starting processes.
    """
    seccomp.no_processes()
    found = [client for client in clients if client.has("psql")]
    fitting = [client for client in found if has_restrict(client.version)]
    if fitting:
        return min(fitting, key=lambda client: client.major != server_major)
    where = where_to_get(max(server_major, OLDEST_MAJOR), tools=("psql",))
    if found:
        raise ClientError(
            f"no psql that knows \\restrict, which keeps a script from running commands on this machine: needed "
            f"{since_text(RESTRICT_SINCE)}, found {'; '.join(map(str, found))}",
            hint=f"update psql to the newest patch release: {where}",
        )
    raise ClientError("no psql found", hint=where)
