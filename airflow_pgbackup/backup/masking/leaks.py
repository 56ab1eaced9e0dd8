"""Search a masked copy for values of the source that should have been masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from airflow_pgbackup.backup.masking.masking import Masking
    from airflow_pgbackup.postgres.archive.reader import CopyBlock

Samples = Mapping[str, frozenset[bytes]]
"""Values of the source by masked column, ``public.customer.email``. They are personal data: log none."""


@dataclass(frozen=True)
class Leak:
    """A place in the copy with values of the source.

    :ivar place: ``column public.ticket.body``, ``statistics of public.customer``, ``large object 16401``, …
    :ivar column: the masked column that the values come from.
    :ivar count: how many of its samples were found there.
    """

    place: str
    column: str
    count: int

    def __str__(self) -> str:
        values = "1 value" if self.count == 1 else f"{self.count} values"
        return f"{self.place} has {values} of {self.column}"


def sample_values(blocks: Iterable[CopyBlock], masking: Masking) -> Samples:
    """Return values of masked columns from the COPY streams of an archive.

    :param blocks: as :meth:`.ArchiveReader.blocks` yields them; read to its end.
    :param masking: after :meth:`.Masking.check_columns` or :meth:`.Masking.install`.
    """
    raise NotImplementedError


def find_leaks(connection: psycopg.Connection[Any], samples: Samples, masking: Masking) -> list[Leak]:
    """Return the places of a database where samples occur: rows, large objects, statistics, comments, definitions.

    :param connection: to the copy, of a role that may read everything in it.
    """
    raise NotImplementedError
