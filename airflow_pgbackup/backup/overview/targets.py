"""Targets: how old the newest verified backup of a series may be, and at which level it must be verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_pgbackup.repository.layout import Series, check_level
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.time_spans import check_span


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is required of a series.

    :param max_age: the greatest age of its newest verified backup.
    :param level: at which that must be verified.
    :param policy: the retention policy, for what the next prune would delete; None: not known.
    :raises ConfigurationError: an invalid value.
    """

    max_age: timedelta = timedelta(hours=26)
    level: str = "archive"
    policy: Policy | None = None

    def __post_init__(self) -> None:
        check_span("max_age", self.max_age)
        check_level(self.level, "level", required=True)


@dataclass(frozen=True)
class Targets:
    """The targets of all series: that of the first rule that applies, else the default.

    :param rules: pairs of a test of a series and the target of those that pass it.
    :param servers: those that must have backups, each with the databases that are named for it.
    """

    default: Target = Target()
    rules: tuple[tuple[Callable[[Series], bool], Target], ...] = ()
    servers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, series: Series) -> Target:
        """Return the target of a series."""
        return next((target for applies, target in self.rules if applies(series)), self.default)
