"""The result of :func:`~airflow_pgbackup.backup.diff.run.diff`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from airflow_pgbackup.repository.layout import Series

SIZES = (BYTES_BY_TABLE, DATABASE_SIZE) = ("bytes by table", "size of the database")
"""What :class:`NotCompared` calls sizes, which may differ between equal backups."""

ADDED, DROPPED, CHANGED = "added", "dropped", "changed"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two backups.

    :param rows_from: where its row counts come from; None if no rows were counted.
    """

    series: Series
    id: str
    started_at: datetime
    state: str
    level: str | None
    format: str
    rows_from: str | None

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            "series": self.series.path,
            "id": self.id,
            "started_at": self.started_at.isoformat(),
            "state": self.state,
            "verified": self.level,
            "format": self.format,
            "rows_from": self.rows_from,
        }


@dataclass(frozen=True)
class PropertyChange:
    """A property with another value: a version, the encoding, an option. None: it has no value on that side."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Measure:
    """A number that both sides have, whether or not it changed.

    :param unit: ``bytes``, ``seconds``, ``rows`` or ``tables``.
    """

    name: str
    unit: str
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def percent(self) -> float | None:
        """The change in percent of the value before; None where that is zero."""
        return percent(self.before, self.after)

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {**asdict(self), "change": self.change, "percent": self.percent}


@dataclass(frozen=True, kw_only=True)
class TableChange:
    """A table that was added or dropped, or whose rows or bytes changed.

    :param change: ``added``, ``dropped`` or ``changed``.
    :param database: in backups of a cluster; else None.
    :param rows_before, rows_after: None where they were not counted.
    :param bytes_before, bytes_after: of its data in the artifact, as stored there; None where that is not known.
    :param content_differs: the digests of its rows differ; None where they cannot be compared. The digest depends on
        the order of the rows, which VACUUM FULL, CLUSTER and an UPDATE of nothing change.
    """

    change: str
    database: str | None
    schema: str
    name: str
    rows_before: int | None = None
    rows_after: int | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    content_differs: bool | None = None

    @property
    def label(self) -> str:
        return ".".join(filter(None, (self.database, self.schema, self.name)))

    @property
    def rows_change(self) -> int | None:
        """Rows more (negative: fewer). An added table had none, a dropped one has none."""
        return _change(self.change, self.rows_before, self.rows_after)

    @property
    def bytes_change(self) -> int | None:
        return _change(self.change, self.bytes_before, self.bytes_after)

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            **asdict(self),
            "rows_change": self.rows_change,
            "rows_percent": percent(self.rows_before, self.rows_after),
            "bytes_change": self.bytes_change,
            "bytes_percent": percent(self.bytes_before, self.bytes_after),
        }


@dataclass(frozen=True)
class DefinitionChange:
    """An object of a table of contents that was added, dropped, or defined otherwise.

    :param kind: as pg_dump calls it: ``TABLE``, ``INDEX``, ``FK CONSTRAINT``, ``ACL``.
    :param detail: lines that changed, where the kind holds no secrets; else how many did.
    """

    change: str
    kind: str
    schema: str | None
    name: str
    detail: str | None = None

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True)
class NotCompared:
    """Something that was not compared, and the reason."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Diff:
    """The differences between two backups.

    :param tables: dropped ones first, then added, then changed; in each by the size of the change.
    :param tables_unchanged, definitions_unchanged: how many are equal; None where they were not compared.
    :param extensions: those with another version, added or dropped.
    :param sequences: those with another value.
    """

    repository: str
    before: Side
    after: Side
    properties: tuple[PropertyChange, ...]
    measures: tuple[Measure, ...]
    extensions: tuple[PropertyChange, ...]
    tables: tuple[TableChange, ...]
    tables_unchanged: int | None
    definitions: tuple[DefinitionChange, ...]
    definitions_unchanged: int | None
    not_compared: tuple[NotCompared, ...]
    notes: tuple[str, ...] = ()
    sequences: tuple[PropertyChange, ...] = ()

    @property
    def same(self) -> bool | None:
        """Whether everything is equal, except sizes and durations; None if all that was compared is."""
        if self.properties or self.extensions or self.tables or self.definitions or self.sequences:
            return False
        return None if any(one.what not in SIZES for one in self.not_compared) else True

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            "repository": self.repository,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "same_series": self.before.series == self.after.series,
            "same": self.same,
            "properties": [asdict(one) for one in self.properties],
            "measures": [one.as_json() for one in self.measures],
            "extensions": [asdict(one) for one in self.extensions],
            "sequences": [asdict(one) for one in self.sequences],
            "tables": [one.as_json() for one in self.tables],
            "tables_unchanged": self.tables_unchanged,
            "definitions": [asdict(one) for one in self.definitions],
            "definitions_unchanged": self.definitions_unchanged,
            "not_compared": [asdict(one) for one in self.not_compared],
            "notes": list(self.notes),
        }


def percent(before: float | None, after: float | None) -> float | None:
    """Return the change in percent, to a tenth; None where there is no value before, or it is zero."""
    if not before or after is None:
        return None
    return round((after - before) * 100 / before, 1)


def _change(change: str, before: int | None, after: int | None) -> int | None:
    if change == ADDED:
        return after
    if change == DROPPED:
        return None if before is None else -before
    return None if before is None or after is None else after - before
