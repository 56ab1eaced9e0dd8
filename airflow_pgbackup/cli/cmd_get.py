"""``pgbackup get``: copy a backup's artifact into a directory."""

from __future__ import annotations

from pathlib import Path

from airflow_pgbackup.backup.download import download
from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.cli.arguments import backup_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError


def run(session: Session) -> None:
    repository, _, manifest = backup_argument(session)
    directory = Path(session.arguments.into)
    if not directory.is_dir():
        found = "is not a directory" if directory.exists() else "does not exist"
        raise ConfigurationError(
            f"directory {directory} {found}", hint="Create it first, or choose another one with --into."
        )
    what = f"downloading {manifest.artifact.name}"
    with session.working(what, makes=True), session.context.step(what, bytes_total=manifest.artifact.size) as step:
        identities = session.context.require_identities() if manifest.artifact.encryption else None
        path = download(
            repository,
            manifest,
            directory,
            hint="Choose a directory that you can write to, on a file system with locks, with --into.",
            identities=identities,
            cancel=session.cancel,
            progress=step,
        )
    command = restore_command_of(manifest, decrypted=bool(identities))
    session.result(
        {"path": str(path), "restore_command": command},
        str(path),
        "to restore it, run in that directory:",
        command,
    )
