"""The figures of a task, for its metrics and the event of its backup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_pgbackup.repository.manifest import Manifest
    from airflow_pgbackup.repository.verification import Verification


@dataclass(kw_only=True)
class TaskFigures:
    """What a dump or a verification measured; None where nothing measured it.

    :param duration_seconds: of the dump or the verification.
    :param rows: in all tables.
    :param restore_seconds: of the restore in a rehearsal.
    """

    duration_seconds: float | None = None
    rows: int | None = None
    restore_seconds: float | None = None

    def take_backup(self, manifest: Manifest) -> None:
        self.duration_seconds = manifest.duration_seconds
        if manifest.source_rows is not None:
            self.rows = sum(table.rows for table in manifest.source_rows)

    def take_verification(self, verification: Verification) -> None:
        self.duration_seconds = verification.duration_seconds
        self.restore_seconds = verification.restore_seconds
        if verification.level != "integrity":
            self.rows = sum(table.rows for table in verification.tables)
