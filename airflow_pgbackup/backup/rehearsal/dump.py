"""The dump that is rehearsed, with what limits the rehearsal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from airflow_pgbackup.backup.context import begin_silent_step, discard
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.postgres.compare.database_reader import BY_LC_MONETARY, BY_SETTINGS
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.settings import Settings

_OF_A_PART = (
    "data_only", "exclude_extensions", "exclude_schemas", "exclude_tables", "exclude_tables_and_children", "extensions",
    "extra_args", "filters", "no_schema", "schemas", "sections", "statistics_only", "tables", "tables_and_children",
)  # fmt: skip


def is_part(manifest: Manifest) -> bool:
    """Return whether a dump's options, unknown if it was adopted, may have left out objects."""
    return "adopted_from" in manifest.origin or any(map(manifest.options.get, _OF_A_PART))


@dataclass(frozen=True, kw_only=True)
class RehearsedDump:
    """The dump that is rehearsed, with what limits the rehearsal.

    :param artifact: a private copy of the artifact, a file or directory, that programs in the sandbox may read.
    :param old_strings: its definitions are those of a session with ``standard_conforming_strings = off``.
    :param deadline: seconds, for each of the restore and the readings.
    :param cancel: stops all programs of the rehearsal.
    :param begin: begins a step whose progress is shown, as :meth:`.RunContext.step`.
    """

    artifact: Path
    manifest: Manifest
    deadline: float
    old_strings: bool = False
    settings: Settings = field(default_factory=Settings)
    cancel: Cancel = field(default_factory=Cancel)
    log: Callable[[str], None] = discard
    begin: Callable[..., Step] = begin_silent_step

    @property
    def database(self) -> str | None:
        """The name of the dumped database; None for a cluster."""
        return self.manifest.series.database

    @property
    def is_part(self) -> bool:
        """Whether the dump's options, unknown if it was adopted, may have left out what its objects use."""
        return is_part(self.manifest)

    @property
    def other_settings(self) -> str:
        """By which settings values may differ. This package dumps with fixed ones, apart from lc_monetary."""
        return BY_SETTINGS if "adopted_from" in self.manifest.origin else BY_LC_MONETARY

    @property
    def is_plain(self) -> bool:
        return self.manifest.artifact.format == "plain"
