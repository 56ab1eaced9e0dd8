"""Turn the arguments of adopt into sources: paths, globs, ``file://`` and ``s3://``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from airflow_pgbackup.backup.adopt.enclosing import Enclosing
from airflow_pgbackup.backup.adopt.globs import Glob
from airflow_pgbackup.backup.adopt.repository_source import RepositorySource
from airflow_pgbackup.backup.adopt.sources import DumpSource, local_source
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository

_GLOB = re.compile(r"[*?\[]")


def open_sources(
    given: Sequence[str | Path | DumpSource],
    *,
    open_store: Callable[[str], Repository] | None = None,
    context: RunContext | None = None,
) -> list[DumpSource]:
    """Return the sources for the arguments.

    :param given: paths, globs, ``file:///directory`` or ``s3://bucket/prefix``, which may end in a glob.
    :param open_store: opens an ``s3://`` URI; by default with boto3's own chain of credentials.
    :raises ConfigurationError: nothing is given, or there is no such file or directory.
    :raises RepositoryError: this user may not look there.
    """
    if not given:
        raise ConfigurationError("no dumps to adopt given", hint="Name files, globs, directories, or s3://….")
    cancel = (context or RunContext()).cancel
    opener = open_store or (lambda uri: open_repository(uri, cancel=cancel))
    return [each if isinstance(each, DumpSource) else _source(str(each), opener) for each in given]


def _source(text: str, open_store: Callable[[str], Repository]) -> DumpSource:
    scheme, separator, rest = text.partition("://")
    if not separator:
        return local_source(text)
    if scheme.lower() == "file":
        if not rest.startswith("/"):
            raise ConfigurationError(f"{text!r} does not name a file of this machine", hint="Write file:///directory.")
        return local_source(unquote(rest))
    return _store_source(text, open_store)


def _store_source(uri: str, open_store: Callable[[str], Repository]) -> DumpSource:
    scheme, _, rest = uri.partition("://")
    bucket, *parts = rest.rstrip("/").split("/")

    def store(above: Sequence[str]) -> Repository:
        return open_store("/".join((f"{scheme}://{bucket}", *above)))

    def enclosing(prefix: Sequence[str]) -> Enclosing:
        return Enclosing.of_prefix(prefix, store)

    fixed = next((number for number, part in enumerate(parts) if _GLOB.search(part)), None)
    if fixed is not None:
        prefix = parts[:fixed]
        return RepositorySource(store(prefix), Glob(parts[fixed:]), enclosing=enclosing(prefix), pattern=uri)
    if parts and not uri.endswith("/"):
        *prefix, name = parts
        if store(prefix).stat(name) is not None:  # one object
            return RepositorySource(store(prefix), one=name, enclosing=enclosing(prefix))
    return RepositorySource(store(parts), enclosing=enclosing(parts))
