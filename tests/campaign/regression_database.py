"""PostgreSQL's own regression database through every format, level and mode.

    .venv/bin/python -m tests.campaign.regression_database [--major 18] [--bin-dir DIRECTORY] [--source DIRECTORY]
        [--cache DIRECTORY] [--mirror URL] [--only REGEX] [--json FILE]

The tests are fetched as Debian's source package (see :mod:`.regression_source`), which are run against a server of the
same version. The database that remains has an object of nearly every kind. It is dumped, verified, and restored; each
copy is compared with the source by :mod:`.database_facts`, and each difference needs a reason of :data:`REASONS`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyrage
from psycopg import sql

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.diff.run import diff
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.fsck.run import fsck
from airflow_pgbackup.backup.mask import propose_rules
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.reference import load_evidence, load_manifest
from airflow_pgbackup.backup.refresh.run import refresh
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.sets.dump_set import dump_set
from airflow_pgbackup.backup.sets.restore_set import restore_set
from airflow_pgbackup.backup.sets.restore_set_plan import SetTarget
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings
from tests.campaign import regression_source
from tests.campaign.database_facts import FactDifference, Facts, differences, observe
from tests.campaign.restore_reasons import reason_of

PART = "regression_database"
SERVER = "regress"
Reference = dict[str, object]

FORMATS: dict[str, dict[str, Any]] = {
    "custom, zstd by us": {},
    "custom, gzip": {"compress": "gzip:1"},
    "custom, lz4": {"compress": "lz4"},
    "custom, none": {"compress": "none"},
    "directory": {"format": "directory"},
    "directory, gzip, 2 jobs": {"format": "directory", "jobs": 2, "compress": "gzip"},
    "tar": {"format": "tar"},
    "plain": {"format": "plain"},
    "plain, zstd": {"format": "plain", "compress": "zstd"},
    "plain, gzip": {"format": "plain", "compress": "gzip"},
    "plain, INSERT": {"format": "plain", "inserts": True},
    "custom, column INSERT": {"column_inserts": True, "rows_per_insert": 100},
    "plain, all names quoted": {"format": "plain", "quote_all_identifiers": True},
    "plain, functions in quotes": {"format": "plain", "disable_dollar_quoting": True},
    "custom, through partition roots": {"load_via_partition_root": True},
    "plain, without owners": {"format": "plain", "no_owner": True, "no_privileges": True},
    "custom, statistics": {"statistics": True},
}
ENCRYPTED = {
    "custom, encrypted": {},
    "directory, encrypted": {"format": "directory"},
    "plain, encrypted": {"format": "plain"},
}


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


def dump_and_verify(campaign: Campaign) -> dict[str, Reference]:
    """Dump in each format, verify at each level, and list the size and the seconds of each."""
    references: dict[str, Reference] = {}
    identity = pyrage.x25519.Identity.generate()
    settings = replace(campaign.context.settings, recipients=(str(identity.to_public()),))
    encrypted = replace(campaign.context, settings=settings, identities=Identities((identity,)))
    for name, options in [*FORMATS.items(), *ENCRYPTED.items()]:
        if not campaign.only.search(name) or ("statistics" in options and campaign.server.major < 18):
            continue
        context = encrypted if name in ENCRYPTED else campaign.context
        seconds: list[object] = []
        with campaign.case(f"dump: {name}"):
            started = time.monotonic()
            references[name] = campaign.dump(context, **options)
            seconds.append(round(time.monotonic() - started, 1))
        if name not in references:
            continue
        for level in ("integrity", "archive", "restore"):
            with campaign.case(f"verify at {level}: {name}"):
                started = time.monotonic()
                references[name] = verify(
                    reference=references[name], repository=campaign.repository, level=level, context=context
                )
                seconds.append(round(time.monotonic() - started, 1))
        evidence = load_evidence(campaign.repository, references[name])
        rehearsed = next((v for v in evidence.verifications if v.level == "restore"), None)
        size = load_manifest(campaign.repository, references[name]).artifact.size
        row: list[object] = [name, round(size / 1024**2, 1), *seconds]
        if rehearsed:
            row += [rehearsed.result, "; ".join(c.detail or c.name for c in rehearsed.checks if "job" in str(c.detail))]
        campaign.formats.append(row)
        with campaign.case(f"restore as a new database: {name}"):
            restore(
                reference=references[name],
                repository=campaign.repository,
                target=RestoreTarget(connection=campaign.server.params.with_database("restored"), mode="create"),
                options=RestoreOptions(),
                analyze=False,
                context=context,
            )
            campaign.compare(
                f"restore as a new database: {name}",
                campaign.server.params.with_database("restored"),
                _reasons_of(options),
            )
        campaign.drop("restored")
    return references


def _reasons_of(options: Mapping[str, Any]) -> dict[str, Explains]:
    reasons: dict[str, Explains] = {}
    if options.get("format") == "plain":
        reasons["database: only pg_dump --create writes its settings into a plain dump"] = _of_database
    if options.get("no_owner"):
        reasons["owners and privileges: the dump was made without them"] = _of_owners
    return reasons


def _of_database(found: FactDifference) -> bool:
    return found.kind == "database"


def _of_owners(found: FactDifference) -> bool:
    if found.what in ("owner", "acl") or found.kind in ("ACL", "DEFAULT ACL", "default acl"):
        return True
    bare = [re.sub(r"^owner .*$", "", text, flags=re.M) for text in (found.before, found.after)]
    return found.what == "definition" and bare[0] == bare[1]


def restore_in_every_mode(campaign: Campaign, reference: Reference) -> None:
    """Restore one custom archive in every mode, and piece by piece."""
    own = {"database: the caller created it": _of_database}

    def mode(name: str, how: Callable[[], object], more: Mapping[str, Explains] | None = None) -> None:
        if not campaign.only.search(name):
            return
        with campaign.case(name):
            started = time.monotonic()
            how()
            campaign.restores.append([name, round(time.monotonic() - started, 1)])
            campaign.compare(name, campaign.server.params.with_database("restored"), more)
        campaign.drop("restored")

    def into_empty() -> None:
        campaign.create("restored")
        campaign.restore(reference, "restored", "into_empty")

    def replaced() -> None:
        campaign.create("restored")
        campaign.execute("CREATE TABLE old (a int)", "restored")
        result = campaign.restore(reference, "restored", "replace", target={"keep_old": False})
        assert result["replaced"] is None, result

    def into_existing() -> None:
        campaign.create("restored")
        campaign.execute("CREATE SCHEMA beside CREATE TABLE beside (a int)", "restored")
        campaign.restore(reference, "restored", "into_existing")
        campaign.execute("DROP SCHEMA beside CASCADE", "restored")

    def definitions_then_rows() -> None:
        campaign.restore(reference, "restored", "create", options={"schema_only": True})
        campaign.execute(_DROP_NOT_VALID, "restored")
        options = {"data_only": True, "disable_triggers": True}
        campaign.restore(reference, "restored", "into_existing", options=options)

    def by_sections() -> None:
        campaign.restore(reference, "restored", "create", options={"sections": ["pre-data"]})
        for section in ("data", "post-data"):
            campaign.restore(reference, "restored", "into_existing", options={"sections": [section]})

    def not_valid(found: FactDifference) -> bool:
        if found.kind == "table constraint":
            name, _, table = found.name.partition(" on ")
            return not campaign.source.catalogs.get(("constraint", f"{table}: {name}"), {}).get("validated", True)
        return "NOT VALID" in found.before or found.what == "not_null"

    mode("mode into_empty", into_empty, own)
    mode("mode replace", replaced, own)
    mode("mode into_existing", into_existing, own)
    mode("mode create, 4 jobs", lambda: campaign.restore(reference, "restored", "create", options={"jobs": 4}))
    dropped = {"constraints: NOT VALID ones were dropped, since old rows violate them": not_valid}
    mode("schema only, then data only", definitions_then_rows, dropped)
    mode("section by section", by_sections)


_DROP_NOT_VALID = """
DO $$
DECLARE found record;
BEGIN
  FOR found IN SELECT conrelid::regclass AS relation, conname FROM pg_constraint
                WHERE NOT convalidated AND conrelid <> 0 AND conislocal AND coninhcount = 0 LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', found.relation, found.conname);
  END LOOP;
END $$
"""


def restore_beside(campaign: Campaign, reference: Reference) -> None:
    """Restore every table with rows into a new schema, beside the live ones, some at a time."""
    live = campaign.database
    for name, schema, tables in _portions(campaign.source):
        if not campaign.only.search(name):
            continue
        with campaign.case(name):
            campaign.restore(
                reference,
                regression_source.DATABASE,
                "into_existing",
                options={"tables": tables, "schemas": [schema]},
                target={"into_schema": "beside"},
            )
            with live.connect() as session:
                for table in tables:
                    query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier("beside", table))
                    (rows,) = session.execute(query).fetchone() or (None,)
                    expected = campaign.source.rows[f"{schema}.{table}"].count
                    if rows != expected:
                        campaign.violate(name, f"{table}: {rows} rows beside, {expected} in the live table")
        campaign.execute("DROP SCHEMA IF EXISTS beside CASCADE", regression_source.DATABASE)


def _portions(source: Facts) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the tables to restore together: the name of the case, the schema, the tables."""
    schemas: dict[str, list[str]] = {}
    for label, rows in sorted(source.rows.items()):
        schema, _, name = label.partition(".")
        case = f"into a schema: {name} of {schema}"
        if case in REFUSALS:
            yield case, schema, [name]
        elif rows.count and source.relation_kind(label) != "m":
            schemas.setdefault(schema, []).append(name)
    for schema, names in schemas.items():
        for start in range(0, len(names), 60):
            some = names[start : start + 60]
            yield f"into a schema: {len(some)} tables of {schema} from {some[0]}", schema, some


def refresh_masked(campaign: Campaign, reference: Reference) -> None:
    """Refresh an empty database: with the rows as they are, by rules that keep all, and by those of ``mask init``."""
    proposed = propose_rules(connection=campaign.database, context=campaign.context)
    expected: dict[str, Explains] = {
        "database: a refresh keeps the settings of its target": _of_database,
        "owners and privileges: a refresh keeps those of its target": _of_owners,
    }
    for name, rules in {
        "refresh, unmasked": None,
        "refresh, all kept": 'large_objects: keep\ncolumns: {"*.*.*": keep}\n',
        "refresh, proposed rules": proposed,
    }.items():
        if not campaign.only.search(name):
            continue
        with campaign.case(name):
            copy = campaign.create("restored")
            started = time.monotonic()
            refresh(
                reference=reference,
                repository=campaign.repository,
                target=copy,
                rules=None if rules is None else load_rules(rules),
                masking_key=MaskingKey(bytes(range(33, 65))),
                keep=0,
                context=campaign.context,
            )
            campaign.restores.append([name, round(time.monotonic() - started, 1)])
            if rules is not proposed:
                campaign.compare(name, copy, expected)
        campaign.drop("restored")


def cluster_and_set(campaign: Campaign, bin_dir: Path) -> None:
    """Dump the cluster, and all databases as a set; restore each into a new server."""
    common = {"connection": campaign.server.params, "server": SERVER, "repository": campaign.repository}
    if campaign.only.search("cluster"):
        with campaign.case("cluster: dump, verify, restore into a new server"), _new_server(bin_dir) as other:
            reference = dump_cluster(options=DumpAllOptions(), compress="zstd", context=campaign.context, **common)
            for level in ("archive", "restore"):
                verify(reference=reference, repository=campaign.repository, level=level, context=campaign.context)
            target = RestoreTarget(connection=other.params)
            restore(reference=reference, repository=campaign.repository, target=target, context=campaign.context)
            campaign.compare("cluster", other.params.with_database(regression_source.DATABASE))
    if campaign.only.search("set"):
        with campaign.case("set: dump, verify, restore into a new server"), _new_server(bin_dir) as other:
            found = dump_set(options=DumpOptions(), level="restore", context=campaign.context, **common)
            assert found.status == "complete", found
            restore_set(
                repository=campaign.repository,
                server=SERVER,
                target=SetTarget(connection=other.params),
                context=campaign.context,
            )
            campaign.compare("set", other.params.with_database(regression_source.DATABASE))


def _new_server(bin_dir: Path) -> PostgresServer:
    return PostgresServer(bin_dir, settings=regression_source.SETTINGS, superuser="postgres")


def other_verbs(campaign: Campaign, references: dict[str, Reference]) -> None:
    """Check, compare, upload, adopt: the verbs that read definitions."""
    common: dict[str, Any] = {"repository": campaign.repository, "context": campaign.context}
    with campaign.case("check"):
        found = check(connection=campaign.database, server=SERVER, scan_rows=True, **common)
        for finding in found:
            print(f"         {finding.severity}: {finding.message}"[:200])
        assert not [each for each in found if each.code in ("crash", "internal")]
    pairs = [name for name in ("custom, zstd by us", "directory", "tar", "plain") if name in references]
    for name in pairs[1:]:
        with campaign.case(f"diff: {pairs[0]} and {name}"):
            before, after = (load_evidence(campaign.repository, references[each]) for each in (pairs[0], name))
            result = diff(before=before, after=after, **common)
            assert not result.tables, result.tables[:3]
            assert not result.definitions, result.definitions[:3]
    second = open_repository((campaign.directory / "second").as_uri())
    second.init()
    for name in pairs:
        with campaign.case(f"upload and adopt: {name}"):
            uploaded = upload(
                reference=references[name], source=campaign.repository, destination=second, context=campaign.context
            )
            verify(reference=uploaded, repository=second, context=campaign.context)
    third = open_repository((campaign.directory / "third").as_uri())
    third.init()
    with campaign.case("adopt"):
        result = adopt(
            repository=third, sources=[campaign.directory / "second"], server="adopted", context=campaign.context
        )
        assert not result["failed"], result
    with campaign.case("fsck"):
        report = fsck(**common)
        assert not report.findings, report.findings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--major", type=int, default=18)
    parser.add_argument("--bin-dir", type=Path, help="the server's programs; default: Debian's, or those of --cache")
    parser.add_argument("--source", type=Path, help="PostgreSQL's source tree, with regress.so built")
    parser.add_argument("--cache", type=Path, default=regression_source.default_cache())
    parser.add_argument("--mirror", help="of Debian; default: that of this machine's apt")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="only cases with such a name")
    parser.add_argument("--json", type=Path, help="write the result there")
    given = parser.parse_args(arguments)
    started, date = time.monotonic(), datetime.now(timezone.utc)
    bin_dir = given.bin_dir or _programs(given.major, given.cache)
    source = regression_source.fetch(given.major, given.cache, source=given.source, mirror=given.mirror)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgbackup-regression-")))
        directory.chmod(0o755)
        results = directory / "results"
        results.mkdir()
        results.chmod(0o777)
        own = regression_source.own_installation(bin_dir, source.library, directory / "installation")
        server = stack.enter_context(_new_server(own))
        repository = open_repository((directory / "repository").as_uri())
        repository.init()
        context = RunContext(settings=Settings(client_dirs=(str(own),)))
        campaign = Campaign(server, repository, directory, given.only, context=context)
        tests = _run_tests(campaign, source, results)
        campaign.source = observe(campaign.database, own)
        _run(campaign, own)
        document = _document(campaign, tests, given, date, time.monotonic() - started)
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{campaign.cases} cases, {len(campaign.violations)} violations, {document['seconds']} s")
    return 1 if campaign.violations else 0


def _programs(major: int, cache: Path) -> Path:
    places = [Path(f"/usr/lib/postgresql/{major}/bin"), cache / f"postgresql-{major}/usr/lib/postgresql/{major}/bin"]
    for place in places:
        if (place / "initdb").exists():
            return place
    raise SystemExit(f"no PostgreSQL {major} server in {places[0]} or {places[1]}: give --bin-dir")


def _run_tests(
    campaign: Campaign, source: regression_source.RegressionSource, results: Path
) -> regression_source.RegressionRun:
    print(f"running {len(source.schedule())} tests of PostgreSQL {campaign.server.version[0]}", flush=True)
    run = regression_source.run_tests(
        campaign.server, source, results, lambda name: print(f"  {name} has another output than expected", flush=True)
    )
    print(f"{run.passed} tests passed, {len(run.failed)} did not, in {run.seconds:.0f} s", flush=True)
    return run


def _run(campaign: Campaign, bin_dir: Path) -> None:
    references = dump_and_verify(campaign)
    custom = references.get("custom, zstd by us") or campaign.dump()
    verify(reference=custom, repository=campaign.repository, context=campaign.context)
    restore_in_every_mode(campaign, custom)
    restore_beside(campaign, custom)
    refresh_masked(campaign, custom)
    cluster_and_set(campaign, bin_dir)
    other_verbs(campaign, references)


def _document(
    campaign: Campaign,
    tests: regression_source.RegressionRun,
    given: argparse.Namespace,
    date: datetime,
    seconds: float,
) -> dict[str, object]:
    facts = campaign.source
    kinds = Counter(kind for kind, _ in facts.objects.elements())
    return {
        "part": PART,
        "date": date.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "parameters": {"server": ".".join(map(str, campaign.server.version)), "only": given.only.pattern},
        "cases": campaign.cases,
        "outcomes": dict(campaign.outcomes),
        "violations": campaign.violations,
        "tables": {
            "PostgreSQL's regression database": {
                "columns": ["what", "number"],
                "rows": [
                    ["regression tests with the expected output", tests.passed],
                    ["regression tests with another output", ", ".join(tests.failed) or 0],
                    ["objects", sum(facts.objects.values())],
                    ["kinds of objects", len(kinds)],
                    ["tables and materialized views with rows", sum(rows.count > 0 for rows in facts.rows.values())],
                    ["rows", sum(rows.count for rows in facts.rows.values())],
                ],
            },
            "Formats": {
                "columns": ["format", "MiB", "dump, s", "integrity, s", "archive, s", "restore, s", "result", "notes"],
                "rows": campaign.formats,
            },
            "Restores": {"columns": ["how", "s"], "rows": campaign.restores},
            "Refused, with a reason": {"columns": ["case", "message", "reason"], "rows": campaign.refused},
            "Objects that differ after a restore": {
                "columns": ["what", "reason", "number", "objects"],
                "rows": [
                    [what, reason, len(names), ", ".join(sorted(names))]
                    for (what, reason), names in sorted(campaign.differing.items())
                ],
            },
        },
        "plots": [],
    }


if __name__ == "__main__":
    sys.exit(main())
