"""One run over PostgreSQL's regression database: its server, its repository, and what came of each case."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from tests.campaign import regression_source
from tests.campaign.database_facts import FactDifference, Facts, differences, observe
from tests.campaign.restore_reasons import reason_of

SERVER = "regress"
Reference = dict[str, object]

REFUSALS = {
    "into a schema: check_con_tbl of public": (
        "does not exist",
        "its CHECK passes the table's own row type to a function, which takes rows of the live table",
    ),
    "refresh, proposed rules": (
        "not masked",
        "the values of a column that is masked are also in columns without a name that looks personal",
    ),
}
"""Cases that must fail: what the message contains, and why."""

Explains = Callable[[FactDifference], bool]


@dataclass
class Campaign:
    """One run: the servers, the repository, and what came of each case."""

    server: PostgresServer
    repository: Repository
    directory: Path
    only: re.Pattern[str]
    source: Facts = field(default_factory=Facts)
    context: RunContext = field(default_factory=RunContext)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, str]] = field(default_factory=list)
    formats: list[list[object]] = field(default_factory=list)
    restores: list[list[object]] = field(default_factory=list)
    refused: list[list[object]] = field(default_factory=list)
    differing: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    cases: int = 0

    @property
    def database(self) -> ConnectionParams:
        return self.server.params.with_database(regression_source.DATABASE)

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Run a case: an error in it is a violation, unless :data:`REFUSALS` has it."""
        self.cases += 1
        started = time.monotonic()
        expected, reason = REFUSALS.get(name, (None, ""))
        try:
            yield
        except PgBackupError as error:
            if expected and expected in error.message:
                self.refused.append([name, error.message, reason])
                self.outcomes["refused, with a reason"] += 1
            else:
                self.violate(name, f"{type(error).__name__}: {error} (hint: {error.hint})")
        except Exception as error:
            self.violate(name, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        else:
            if expected:
                self.violate(name, f"succeeded, but must fail with {expected!r}: {reason}")
            self.outcomes["as it must be"] += 1
        print(f"  {time.monotonic() - started:5.1f} s  {name}", flush=True)

    def violate(self, case: str, what: str) -> None:
        print(f"  VIOLATED  {case}: {what}", flush=True)
        self.violations.append({"case": case, "what": what})
        self.outcomes["violated"] += 1

    def dump(self, context: RunContext | None = None, **options: Any) -> Reference:
        return dump_database(
            connection=self.database,
            server=SERVER,
            repository=self.repository,
            options=DumpOptions(**options),
            count_rows=True,
            context=context or self.context,
        )

    def restore(self, reference: Reference, name: str, mode: str, **more: Any) -> dict[str, object]:
        options = RestoreOptions(**more.pop("options", {}))
        target = RestoreTarget(connection=self.server.params.with_database(name), mode=mode, **more.pop("target", {}))
        more = {"analyze": False, "context": self.context, **more}
        return restore(reference=reference, repository=self.repository, target=target, options=options, **more)

    def compare(self, case: str, copy: ConnectionParams, more: Mapping[str, Explains] | None = None) -> None:
        """Compare a copy with the source: each difference needs a reason.

        :param more: reasons that hold for this case only.
        """
        found = observe(copy, self.server.bin_dir, self.source.rows)
        unexplained = []
        for difference in differences(self.source, found):
            reason = reason_of(difference, self.source, found) or next(
                (reason for reason, explains in (more or {}).items() if explains(difference)), None
            )
            if reason:
                kind = f"{difference.kind}: {difference.what}"
                self.differing.setdefault((kind, reason), set()).add(difference.name)
            else:
                unexplained.append(difference)
        for difference in unexplained[:20]:
            self.violate(
                case,
                f"{difference.kind} {difference.name}: {difference.what} differs: source {difference.before[:400]!r}, "
                f"copy {difference.after[:400]!r}",
            )
        if len(unexplained) > 20:
            self.violate(case, f"{len(unexplained) - 20} more differences")

    def execute(self, statement: str, database: str = "postgres", **names: str) -> None:
        with self.server.params.with_database(database).connect() as session:
            identifiers = {key: sql.Identifier(value) for key, value in names.items()}
            session.execute(sql.SQL(statement).format(**identifiers))  # type: ignore[arg-type]

    def create(self, name: str) -> ConnectionParams:
        self.execute("CREATE DATABASE {name} TEMPLATE template0", name=name)
        return self.server.params.with_database(name)

    def drop(self, *names: str) -> None:
        for name in names:
            self.execute("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=name)
