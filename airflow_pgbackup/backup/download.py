"""Copy an artifact into a directory of the user's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from airflow_pgbackup.backup.artifact import check_bytes
from airflow_pgbackup.backup.private_copy import disk_errors
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import AlreadyExists, ConfigurationError, VerificationFailed
from airflow_pgbackup.postgres.tools.process import Cancel
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.local.naming import name_exclusively, rename
from airflow_pgbackup.repository.manifest import Manifest


def download(
    repository: Repository,
    manifest: Manifest,
    into: Path,
    *,
    hint: str | None = None,
    identities: Identities | None = None,
    cancel: Cancel | None = None,
    progress: Step | None = None,
) -> Path:
    """Copy the artifact into a directory, files with mode 0600 and a directory with 0700. It gets its name after its
    bytes were compared with the manifest. A failure leaves nothing.

    :param hint: of an error, if the directory cannot be written.
    :param identities: decrypt an encrypted artifact; without one it is copied as it is.
    :return: the artifact's path.
    :raises VerificationFailed: it differs from what was dumped.
    :raises ConfigurationError: the name exists already.
    :raises DiskError: the copy does not fit, or cannot be written.
    """
    target = into / (manifest.artifact.plain if identities else manifest.artifact).name
    taken = ConfigurationError(f"{target} exists already", hint="Move it, or choose another directory.")
    if os.path.lexists(target):
        raise taken
    with PrivateDirectory(into, hint=hint) as directory:
        wrong, checked = check_bytes(
            repository, manifest, into=directory, identities=identities, cancel=cancel, progress=progress
        )
        if wrong:
            raise VerificationFailed(
                f"backup {manifest.name} differs from what was dumped: {wrong[0]}",
                hint="Choose another backup.",
            )
        with disk_errors(into):
            try:
                _name(checked.private_path, target)
            except AlreadyExists:
                raise taken from None
    return target


def _name(path: Path, target: Path) -> None:
    """Move ``path`` to ``target``. :raises AlreadyExists: the name exists by now."""
    if not path.is_dir():
        name_exclusively(path, target)
        return
    try:
        rename(path, target)  # replaces nothing but an empty directory, rename(2)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise AlreadyExists(f"{target} exists already") from None
        raise
