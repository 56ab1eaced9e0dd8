"""The whole environment of a child: what its connection needs, nothing of the worker's that could leak or misdirect."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup.postgres.keywords import variables
from airflow_pgbackup.postgres.pgpass import pgpass_file
from airflow_pgbackup.postgres.service import write_service

if TYPE_CHECKING:
    from airflow_pgbackup.postgres.conninfo import ConnectionParams

# Of the worker's own: where programs and libraries are, and how names, certificates and Kerberos tickets are found.
INHERITED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "KRB5_CLIENT_KTNAME",
)

# A client that is older than the option ignores its variable; it does not ignore a line of a service file. That it
# must not connect in a way that require_auth forbids is worth the error.
_NOT_BY_VARIABLE = frozenset({"require_auth"})

_SERVICE = "pgbackup"


@contextmanager
def client_environment(params: ConnectionParams, *, dbname: str | None = None) -> Iterator[dict[str, str]]:
    """The environment in which PostgreSQL's tools reach what `params` says; add what you like to it.

    ``HOME`` and ``TMPDIR`` lie in a private folder, which is gone afterwards as the password file is. The session is
    pinned where a dump would differ from the dump of its own restore: UTC, hexadecimal bytea.

    :param dbname: instead of the database of `params`. ``PGDATABASE`` is taken literally by pg_dump and psql, by
        pg_restore when it gets ``-d ''`` beside it; for pg_dumpall's ``--database`` see :func:`literal_dbname`.
    """
    if dbname is not None:
        params = params.with_database(dbname)
    keywords = params.keywords_with_defaults()
    keywords["options"] = f"{keywords.get('options', '')} -c bytea_output=hex".strip()
    with tempfile.TemporaryDirectory(prefix="pgbackup-") as private:
        folder = Path(private)
        home, temporary = folder / "home", folder / "tmp"
        home.mkdir(mode=0o700)
        temporary.mkdir(mode=0o700)
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        env.update(HOME=str(home), TMPDIR=str(temporary), LC_MESSAGES="C", PGTZ="UTC")
        env["PGBACKUP_PRIVATE_FOLDER"] = private  # for _exec.py, should we be killed
        by_service = {}
        for keyword, value in keywords.items():
            variable = variables()[keyword]
            if variable and keyword not in _NOT_BY_VARIABLE:
                env[variable] = value
            else:
                by_service[keyword] = value
        if by_service:
            write_service(folder / "pg_service.conf", _SERVICE, by_service)
            env.update(PGSERVICEFILE=str(folder / "pg_service.conf"), PGSERVICE=_SERVICE)
        with pgpass_file(params, directory=folder) as passfile:
            if passfile:
                env["PGPASSFILE"] = str(passfile)
            elif (password := params.get_password()) is not None:
                env["PGPASSWORD"] = password
            yield env
