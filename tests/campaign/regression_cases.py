"""What is done with a backup of PostgreSQL's regression database: every mode of a restore, and the other verbs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from psycopg import sql

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.check import check
from airflow_pgbackup.backup.diff.run import diff
from airflow_pgbackup.backup.dump import dump_cluster
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
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository
from tests.campaign import regression_source
from tests.campaign.database_facts import FactDifference, Facts
from tests.campaign.regression_formats import FORMATS, of_database, of_owners
from tests.campaign.regression_run import REFUSALS, SERVER, Campaign, Explains, Reference


def restore_in_every_mode(campaign: Campaign, reference: Reference) -> None:
    """Restore one custom archive in every mode, and piece by piece."""
    own = {"database: the caller created it": of_database}

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
        of_one = any(words in found.before for words in ("NOT VALID", "NOT ENFORCED", "COMMENT ON CONSTRAINT"))
        return of_one or found.what == "not_null"

    def enabled_trigger(found: FactDifference) -> bool:
        return found.kind == "TRIGGER" and found.before.replace(" ENABLE ALWAYS ", " ENABLE ") == found.after

    mode("mode into_empty", into_empty, own)
    mode("mode replace", replaced, own)
    mode("mode into_existing", into_existing, own)
    mode("mode create, 4 jobs", lambda: campaign.restore(reference, "restored", "create", options={"jobs": 4}))
    apart = {
        "constraints: NOT VALID and NOT ENFORCED ones were dropped, since old rows violate them": not_valid,
        "triggers: --disable-triggers leaves all enabled, also those that were ENABLE ALWAYS": enabled_trigger,
    }
    mode("schema only, then data only", definitions_then_rows, apart)
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
        "database: a refresh keeps the settings of its target": of_database,
        "owners and privileges: a refresh keeps those of its target": of_owners,
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
        with campaign.case("cluster: dump, verify, restore into a new server"), new_server(bin_dir) as other:
            reference = dump_cluster(options=DumpAllOptions(), compress="zstd", context=campaign.context, **common)
            for level in ("archive", "restore"):
                verify(reference=reference, repository=campaign.repository, level=level, context=campaign.context)
            target = RestoreTarget(connection=other.params)
            restore(reference=reference, repository=campaign.repository, target=target, context=campaign.context)
            campaign.compare("cluster", other.params.with_database(regression_source.DATABASE))
    if campaign.only.search("set"):
        with campaign.case("set: dump, verify, restore into a new server"), new_server(bin_dir) as other:
            found = dump_set(options=DumpOptions(), level="restore", context=campaign.context, **common)
            assert found.status == "complete", found
            restore_set(
                repository=campaign.repository,
                server=SERVER,
                target=SetTarget(connection=other.params),
                context=campaign.context,
            )
            campaign.compare("set", other.params.with_database(regression_source.DATABASE))


def new_server(bin_dir: Path) -> PostgresServer:
    return PostgresServer(bin_dir, settings=regression_source.SETTINGS, superuser="postgres")


def other_verbs(campaign: Campaign, references: dict[str, Reference]) -> None:
    """Check, compare, upload, adopt: the verbs that read definitions."""
    if not campaign.only.search("verbs"):
        return
    common: dict[str, Any] = {"repository": campaign.repository, "context": campaign.context}
    with campaign.case("check"):
        found = check(connection=campaign.database, server=SERVER, scan_rows=True, **common)
        for finding in found:
            print(f"         {finding.severity}: {finding.message}"[:200])
        assert not [each for each in found if each.code in ("crash", "internal")]
    pairs = ["custom, zstd by us", "directory", "tar", "plain"]
    for name in pairs:
        if name not in references:
            made = campaign.dump(**FORMATS[name])
            references[name] = verify(reference=made, repository=campaign.repository, context=campaign.context)
    for name in pairs[1:]:
        with campaign.case(f"diff: {pairs[0]} and {name}"):
            before, after = (load_evidence(campaign.repository, references[each]) for each in (pairs[0], name))
            result = diff(before=before, after=after, **common)
            assert not result.tables, result.tables[:3]
            assert not result.definitions, result.definitions[:3]
    second = open_repository((campaign.directory / "second").as_uri())
    second.init()
    for name in pairs:
        with campaign.case(f"upload: {name}"):
            uploaded = upload(
                reference=references[name], source=campaign.repository, destination=second, context=campaign.context
            )
            verify(reference=uploaded, repository=second, context=campaign.context)
    third = open_repository((campaign.directory / "third").as_uri())
    third.init()
    old = campaign.directory / "old"  # bare dumps, as scripts leave them
    old.mkdir()
    for number, name in enumerate(pairs):
        path = campaign.repository.local_path(load_manifest(campaign.repository, references[name]).artifact_key)
        assert path is not None
        (shutil.copytree if path.is_dir() else shutil.copyfile)(
            path, old / f"regression_2026010{number + 1}{path.suffix}"
        )
    with campaign.case("adopt"):
        result = adopt(
            repository=third, sources=[old], server="adopted", database="regression", context=campaign.context
        )
        assert not result["failed"], result
        adopted: Any = result["adopted"]
        assert len(adopted) == len(pairs), result
        for reference in adopted:
            verify(reference=reference, repository=third, level="restore", context=campaign.context)
    with campaign.case("fsck"):
        report = fsck(**common)
        assert not report.findings, report.findings
