"""Mask the rows of a refresh while they are loaded, and search the copy for values of the source afterwards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext

from airflow_pgbackup.backup.artifact import choose_reader
from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.databases.sessions import session, translated_errors
from airflow_pgbackup.backup.masking import Masking, MaskingKey, MaskingRules, Samples, find_leaks, sample_values
from airflow_pgbackup.backup.masking.columns import name_text
from airflow_pgbackup.backup.masking.pattern import ColumnPattern
from airflow_pgbackup.backup.masking.samples import sampled_columns
from airflow_pgbackup.backup.restore.context import RestoreContext
from airflow_pgbackup.backup.subset import SubsetPlan
from airflow_pgbackup.errors import MaskingError, ToolError
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_of, printable

_CONSTRAINTS = frozenset({"CONSTRAINT", "INDEX", "FK CONSTRAINT"})
_MOST_LEAKS = 20
_NAMED = 5


class MaskedLoad:
    """The masking of one refresh.

    :param checked: the archive, of which sample values are read.
    :param entries: those that are restored.
    :ivar columns: how many columns are masked, once the rules are installed.
    :ivar values: how many values of the source the copy was searched for.
    """

    def __init__(
        self,
        run: RestoreContext,
        rules: MaskingRules,
        key: MaskingKey,
        checked: CheckedArtifact,
        entries: Sequence[TocEntry],
    ) -> None:
        self._run = run
        self._checked = checked
        definitions = [entry.definition for entry in entries if entry.kind in _CONSTRAINTS]
        rows = {(entry.schema or "", entry.name): entry for entry in entries if entry.kind == "TABLE DATA"}
        self._masking = Masking(rules, key, definitions=definitions, dumped=rows.keys())
        self._inserted = {name for name, entry in rows.items() if entry.has_data and not entry.copy_statement}
        self._samples: Samples = {}
        self.columns = 0
        self.values = 0

    @property
    def line(self) -> str:
        """Return the line of the plan that says how rows are masked."""
        rules = self._masking.rules
        large = "" if rules.keep_large_objects else ", without large objects"
        return f"masked by {counted(len(rules.columns), 'rule')}{large}, then searched for values of the source"

    def begin(self, params: ConnectionParams) -> None:
        """Mask every row that is loaded from now on.

        :raises MaskingError: columns without a rule in tables under rules, or rules that cannot hold.
        """
        run = self._run
        with session(params, run.cancel) as connection, translated_errors("creating the triggers that mask rows"):
            self._masking.install(connection)
        plan = self._masking.plan
        assert plan is not None  # noqa: S101  install() made it
        self.columns = sum(masked.rule.method != "keep" for masked in plan.masked())
        if not self.columns:
            run.warn("the rules mask no column of the restored tables")
        run.log(f"masking {counted(self.columns, 'column')} of {counted(len(list(plan.tables)), 'table')}")
        self._require_samples()
        self._samples = self._read_samples()
        self.values = sum(map(len, self._samples.values()))

    def end(self, params: ConnectionParams) -> None:
        """Remove the triggers and the secret, when all rows are loaded."""
        with session(params, self._run.cancel) as connection, translated_errors("dropping the triggers that mask rows"):
            self._masking.remove(connection)

    @contextmanager
    def hinting(self) -> Iterator[None]:
        """Add the rule to the hint of an error if masked rows violate a constraint."""
        try:
            yield
        except ToolError as error:
            error.hint = self._masking.hint(error.message) or error.hint
            raise

    def search(self, params: ConnectionParams) -> None:
        """Search the copy for values of the source, and say if there are none to search for.

        :raises MaskingError: some were found; it names the places, never a value.
        """
        run = self._run
        if not self.values:
            unsearched = "the copy was not searched for unmasked values"
            if not self._masking.rules.samples:
                run.log(f"{unsearched}: leak_check has samples: 0")
            elif self.columns:
                run.warn(f"{unsearched}: the masked columns have none to search for")
            return
        with session(params, run.cancel) as connection, translated_errors("searching the copy for unmasked values"):
            leaks = find_leaks(connection, self._samples, self._masking, check=run.check)
        if leaks:
            raise MaskingError(
                [printable(f"not masked: {leak}; {leak.advice}") for leak in leaks[:_MOST_LEAKS]]
                + ([f"and {len(leaks) - _MOST_LEAKS} more places"] if len(leaks) > _MOST_LEAKS else [])
            )
        run.log(f"searched the copy for {counted(self.values, 'value')} of masked columns: none found")

    def _require_samples(self) -> None:
        """Refuse rows of which no values can be sampled, as a search for nothing would find nothing."""
        columns = {(each.column.schema, each.column.table) for each in sampled_columns(self._masking)}
        tables = [f"{name_text(schema)}.{name_text(name)}" for schema, name in sorted(columns & self._inserted)]
        if tables:
            raise MaskingError(
                [
                    f"no values of {first_of(tables, _NAMED)} can be searched for, as the backup has their "
                    "rows as INSERT statements; dump without inserts, or set leak_check: {samples: 0}"
                ]
            )

    def _read_samples(self) -> Samples:
        run, artifact = self._run, self._checked.manifest.artifact
        opening = nullcontext(self._checked.path) if self._checked.path else self._checked.stream(run.check)
        with opening as source, run.step(f"sampling {artifact.name}"):
            reader = ArchiveReader(
                source,
                format=artifact.format,
                client=choose_reader(self._checked.manifest, run.settings.client_dirs),
                deadline=run.remaining() or math.inf,
                cancel=run.cancel,
            )
            with closing(reader.blocks()) as blocks:
                return sample_values(blocks, self._masking)


def rules_for(rules: MaskingRules, subset: SubsetPlan) -> MaskingRules:
    """Return the rules without those that fit only tables of the archive that are not restored.

    Rules that also fit restored tables, or those whose partitions these are, are kept, and it is not an error if they
    fit no column of those.
    """
    ruled = subset.tables | set(subset.parents.values())

    def fits(pattern: ColumnPattern, tables: Iterable[tuple[str, str]]) -> bool:
        return any(pattern.matches_table(schema, name) for schema, name in tables)

    elsewhere = frozenset(pattern for pattern, _ in rules.columns if fits(pattern, subset.missing))
    columns = tuple(
        (pattern, rule) for pattern, rule in rules.columns if pattern not in elsewhere or fits(pattern, ruled)
    )
    return dataclasses.replace(rules, columns=columns, may_be_unused=elsewhere, parents=subset.parents)
