"""``pgbackup metrics``: print metrics of a repository for Prometheus, or write them for node_exporter."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from airflow_pgbackup.backup.metrics import metrics, render
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError, DiskError


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    output = Path(arguments.output) if arguments.output is not None else None
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        what = f"{output} is a directory" if output.is_dir() else f"{output.parent} is not a directory"
        raise ConfigurationError(what, hint="Name a file in an existing directory with --output.")
    with session.working(f"reading {repository.uri}"):
        families = metrics(repository=repository)
    text = render(families)
    document = {
        "repository": repository.uri,
        "output": None if output is None else str(output),
        "metrics": [family.as_json() for family in families],
    }
    if output is not None:
        _write(output, text)
        session.result(document, f"wrote {sum(len(family.samples) for family in families):,} samples to {output}")
    elif arguments.json:
        session.result(document)
    else:
        session.out.write(text.rstrip("\n"))


def _write(output: Path, text: str) -> None:
    """Replace a file at once, so that a collector reads the old metrics or the new ones.

    :raises DiskError: it cannot be written; the old file stays.
    """
    # Not *.prom: node_exporter would read it.
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)  # whatever the umask: node_exporter runs as another user
            temporary.replace(output)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DiskError(
            f"cannot write {output}: {os.strerror(error.errno or 0)}",
            hint="Check the permissions of its directory and the space on its disk.",
        ) from None
