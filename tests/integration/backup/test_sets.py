"""Backup sets on a real server: which databases are found, and what a set says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg import sql

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_cluster, dump_database
from airflow_pgbackup.backup.reference import load_manifest, reference_of
from airflow_pgbackup.backup.sets.discover import SERVICE_DATABASES, Discovery, discover
from airflow_pgbackup.backup.sets.dump_set import dump_set
from airflow_pgbackup.backup.sets.write_set import as_json, require_complete, write_set
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConfigurationError, OptionError, PartialSet, RepositoryMismatch
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.backup_set import Absent
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import parse_backup_id
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.set_files import list_sets, read_set

ODD_NAMES = [
    'quo\'te "d" `x`',
    " Spaces ",
    "CRM",
    "Ünï 数据库 🐘",
    "a.b",
    "a*b",
    "$(id)",
    "line\nbreak",
    "@sets",
    "-o",
    "..",
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests alone: they list all its databases."""
    with PostgresServer(postgres_bin_dir(18), password="secret", tcp=True) as server:
        yield server


@pytest.fixture
def run_sql(server: PostgresServer) -> Callable[..., None]:
    def run(*statements: str | sql.Composed) -> None:
        with closing(server.params.connect()) as session:
            for statement in statements:
                session.execute(statement)

    return run


@pytest.fixture
def create(server: PostgresServer) -> Iterator[Callable[..., None]]:
    """``create(*names)``: empty databases, dropped after the test."""
    made: list[str] = []

    def run(*names: str) -> None:
        with closing(server.params.connect()) as session:
            for name in names:
                session.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE template0 STRATEGY file_copy").format(sql.Identifier(name))
                )
                made.append(name)

    yield run
    with closing(server.params.connect()) as session:
        for name in made:
            session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def found(server: PostgresServer, **arguments: Any) -> Discovery:
    return discover(connection=server.params, **arguments)


def names(discovery: Discovery) -> set[str]:
    return {each.name for each in discovery.databases}


def reasons(absent: Sequence[Absent]) -> dict[str, str]:
    return {each.database: each.reason for each in absent}


# -- discover ---------------------------------------------------------------------------------------------------------


def test_all_databases_but_the_templates_largest_first(server: PostgresServer, create: Callable[..., None]) -> None:
    create("small", "large")
    with closing(server.params.with_database("large").connect()) as session:
        session.execute("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    lines: list[str] = []
    discovery = found(server, context=RunContext(log=lines.append))
    assert discovery.databases[0].name == "large"
    assert names(discovery) == {"large", "small", "postgres"}
    assert reasons(discovery.left_out) == {
        "template0": "it accepts no connections",
        "template1": "it is a template",
    }
    assert discovery.missing == ()
    assert discovery.server_version.startswith("18.")
    assert lines[0].startswith("found 3 databases to dump on ")
    assert "leaving out template1: it is a template" in lines
    assert Discovery.from_json(discovery.as_json()) == discovery


def test_patterns_are_those_of_psql(server: PostgresServer, create: Callable[..., None]) -> None:
    create("app_1", "app_2", "App_3", "staging_app", "other")
    assert names(found(server, databases=["app_*"])) == {"app_1", "app_2"}
    assert names(found(server, databases=["APP_?"])) == {"app_1", "app_2"}, "letters are folded, as in psql"
    assert names(found(server, databases=['"App_"*'])) == {"App_3"}
    assert names(found(server, databases=["*app*"], exclude=["staging_*", "app_2"])) == {"app_1"}
    assert reasons(found(server, exclude=["app_*"]).left_out)["app_1"] == "excluded"
    assert reasons(found(server, databases=["other"]).left_out)["app_1"] == "not selected"


def test_odd_names_are_found_and_meant_by_themselves(server: PostgresServer, create: Callable[..., None]) -> None:
    create(*ODD_NAMES, "crm", "axb", "b")
    assert names(found(server)) >= set(ODD_NAMES)
    for name in ODD_NAMES:
        assert names(found(server, databases=[name])) == {name}, name
        assert name not in names(found(server, exclude=[name])), name


def test_a_named_database_that_does_not_exist_is_missing(server: PostgresServer, create: Callable[..., None]) -> None:
    create("crm")
    discovery = found(server, databases=["CRM", "gone", "a.gone", "nothing_*", "template1"])
    assert names(discovery) == {"crm", "template1"}, "a template that is named is dumped"
    assert reasons(discovery.missing) == {"gone": "does not exist", "a.gone": "does not exist"}


def test_a_named_database_that_accepts_no_connections_is_missing(
    server: PostgresServer, create: Callable[..., None], run_sql: Callable[..., None]
) -> None:
    create("app", "Crm", "invalid", "template_x")
    run_sql(
        'ALTER DATABASE "Crm" ALLOW_CONNECTIONS false',
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'invalid'",
        "ALTER DATABASE template_x IS_TEMPLATE true",
    )
    try:
        named = ["app", '"Crm"', "invalid", "template_x"]
        discovery = found(server, databases=named)
        assert names(discovery) == {"app", "template_x"}
        assert reasons(discovery.missing) == {
            "Crm": "it accepts no connections",
            "invalid": "its DROP DATABASE was interrupted",
        }
        assert found(server, databases=named, exclude=['"Crm"', "invalid"]).missing == ()
        assert found(server).missing == ()
    finally:
        run_sql(
            "UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'invalid'",
            "ALTER DATABASE template_x IS_TEMPLATE false",
        )


def test_a_quoted_name_is_a_name_and_a_pattern_without_match_is_a_warning(
    server: PostgresServer, create: Callable[..., None]
) -> None:
    create("app", "Crm")
    lines: list[str] = []
    discovery = found(
        server,
        databases=["app", '"Crm"', '"Gone"', "billing$2024", '"a*b"', "no_*"],
        context=RunContext(log=lines.append),
    )
    assert names(discovery) == {"app", "Crm"}
    assert reasons(discovery.missing) == dict.fromkeys(["Gone", "billing$2024", "a*b"], "does not exist")
    assert [line for line in lines if "warning" in line] == ["warning: no database matches no_*"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"databases": "app"}, OptionError, "databases is the string 'app'"),
        ({"databases": None}, OptionError, "databases is None"),
        ({"exclude": [""]}, OptionError, "exclude holds a pattern that is empty"),
        ({"databases": ["a("]}, OptionError, "invalid pattern in databases or exclude: invalid regular expression"),
        ({"databases": ["nothing_*"]}, ConfigurationError, "no database of .* is to be dumped"),
        ({"databases": []}, ConfigurationError, "no database of .* is to be dumped"),
        ({"databases": ["gone"]}, ConfigurationError, r"missing: gone \(does not exist\)"),
    ],
)
def test_what_cannot_be_discovered(
    server: PostgresServer, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        found(server, **arguments)


def test_what_the_role_may_not_connect_to_is_missing_and_the_service_s_own_left_out(
    server: PostgresServer, create: Callable[..., None], run_sql: Callable[..., None]
) -> None:
    create("open", "shut", "rdsadmin", "invalid")
    run_sql(
        "CREATE ROLE backup LOGIN PASSWORD 'x'",
        "REVOKE CONNECT ON DATABASE shut, rdsadmin FROM public",
        "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'invalid'",
    )
    try:
        params = ConnectionParams.from_environment(
            {"PGPASSWORD": "x"}, host=server.params.host, port=server.params.port, user="backup"
        )
        discovery = discover(connection=params)
        assert names(discovery) == {"open", "postgres"}
        assert reasons(discovery.missing) == {"shut": "role backup may not connect to it"}
        left_out = reasons(discovery.left_out)
        assert left_out["rdsadmin"] == f"it is internal to {SERVICE_DATABASES['rdsadmin']}"
        assert left_out["invalid"] == "its DROP DATABASE was interrupted"
    finally:
        run_sql("UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'invalid'", "DROP ROLE backup")


def test_200_empty_databases(server: PostgresServer, run_sql: Callable[..., None], here: Repository) -> None:
    many = [f"empty_{number:03}" for number in range(200)]
    run_sql(*(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy" for name in many))
    try:
        discovery = found(server, databases=["empty_*"])
        assert [each.name for each in discovery.databases] == many
        some = Run(server, here, discovery).dump(*many[:3])
        written = some.write(with_globals=False)
        assert [each.database for each in written.databases] == many[:3]
        assert len(written.missing) == 197
        with pytest.raises(PartialSet) as caught:
            require_complete((here, written))
        assert "empty_007 (no backup was made) and 192 more" in caught.value.message
        assert len(str(caught.value)) < 700
    finally:
        run_sql(*(f"DROP DATABASE {name} WITH (FORCE)" for name in many))


# -- write_set --------------------------------------------------------------------------------------------------------


class Run:
    """One run: what it found and what it dumped."""

    def __init__(
        self,
        server: PostgresServer,
        repository: Repository,
        discovery: Discovery,
        *,
        name: str = "prod",
        seed: str = "",
    ) -> None:
        self.server, self.repository, self.discovery, self.name, self.seed = server, repository, discovery, name, seed
        self.backups: list[dict[str, object]] = []
        self.lines: list[str] = []

    @property
    def context(self) -> RunContext:
        return RunContext(log=self.lines.append, seed=self.seed or None)

    def dump(self, *databases: str, verified: bool = True) -> Run:
        for database in databases:
            reference = dump_database(
                connection=self.server.params.with_database(database),
                server=self.name,
                repository=self.repository,
                options=DumpOptions(),
            )
            if verified:
                reference = verify(reference=reference, repository=self.repository)
            self.backups.append(reference)
        return self

    def dump_globals(self) -> dict[str, object]:
        reference = dump_cluster(
            connection=self.server.params,
            server=self.name,
            repository=self.repository,
            options=DumpAllOptions(globals_only=True),
        )
        return verify(reference=reference, repository=self.repository)

    def write(self, **arguments: Any) -> Any:
        return write_set(
            **{
                "repository": self.repository,
                "server": self.name,
                "discovery": self.discovery,
                "backups": self.backups,
                "context": self.context,
                **arguments,
            }
        )


def test_a_complete_set(server: PostgresServer, create: Callable[..., None], here: Repository) -> None:
    create("app", 'odd "Name"')
    run = Run(server, here, found(server, databases=["app", 'odd "Name"']), seed="run 1").dump("app", 'odd "Name"')
    written = run.write(globals_backup=run.dump_globals())
    require_complete((here, written))
    assert written.status == "complete"
    assert [each.database for each in written.databases] == [each.name for each in run.discovery.databases]
    assert {each.level for each in written.members} == {"archive"}
    for member in written.members:
        manifest = load_manifest(here, {"series": member.series, "id": member.id, "repository_uuid": here.uuid})
        assert (manifest.artifact.sha256, manifest.artifact_key) == (member.sha256, member.key)
        assert here.stat(member.key) is not None
    assert read_set(here, "prod", written.id) == written
    assert written.started_at == parse_backup_id(written.id) == run.discovery.started_at
    assert run.lines[-1].startswith(f"backup set prod/@sets/{written.id} in {here.uri} is complete: globals and 2 data")
    assert run.lines[-1].endswith("they are not one snapshot")
    assert as_json(here, written)["missing"] == []


def test_a_partial_set_says_what_is_missing_and_a_retry_completes_it(
    server: PostgresServer, create: Callable[..., None], here: Repository
) -> None:
    create("app", "crm", "web")
    run = Run(server, here, found(server, databases=["app", "crm", "web", "gone"]), seed="run 1").dump("app")
    unverified = Run(server, here, run.discovery).dump("crm", verified=False).backups[0]
    run.backups.append(unverified)
    partial = run.write()
    assert reasons(partial.missing) == {
        "gone": "does not exist",
        "crm": f"backup {unverified['id']} is not verified yet",
        "web": "no backup was made",
    }
    assert partial.globals_missing == "no backup was made"
    with pytest.raises(PartialSet) as caught:
        require_complete((here, partial))
    assert caught.value.message == (
        f"backup set prod/@sets/{partial.id} in {here.uri} is partial: missing globals (no backup was made), "
        f"gone (does not exist), crm (backup {unverified['id']} is not verified yet), web (no backup was made)"
    )
    # Cleared, and found again: what has been repaired counts, whatever the references say.
    verify(reference=unverified, repository=here)
    run.discovery = replace(run.discovery, missing=(), started_at=run.discovery.started_at + timedelta(hours=1))
    complete = run.dump("web").write(globals_backup=run.dump_globals())
    assert (complete.id, complete.status) == (partial.id, "complete")
    assert run.write(globals_backup=run.dump_globals()).status == "complete"
    (listed,) = list_sets(here)
    assert [name.status for name in listed.names][:2] == ["partial", "complete"]


def test_another_run_is_another_set_and_a_second_try_adds_nothing(
    server: PostgresServer, create: Callable[..., None], here: Repository
) -> None:
    create("app")
    run = Run(server, here, found(server, databases=["app"]), seed="run 1").dump("app")
    first = run.write(with_globals=False)
    assert run.write(with_globals=False) == first
    other = Run(server, here, run.discovery, seed="run 2").dump("app").write(with_globals=False)
    assert other.id != first.id
    assert [len(one.names) for one in list_sets(here)] == [1, 1]


def test_new_and_dropped_databases(
    server: PostgresServer, create: Callable[..., None], run_sql: Callable[..., None], here: Repository
) -> None:
    def night(number: int) -> tuple[Any, list[str]]:
        discovery = replace(
            discovered := found(server, exclude=["postgres"]),
            started_at=discovered.started_at + number * timedelta(days=1),
        )
        run = Run(server, here, discovery, seed=str(number)).dump(*sorted(names(discovery)))
        return run.write(with_globals=False), run.lines

    create("app", "old")
    first, _ = night(0)
    run_sql("DROP DATABASE old WITH (FORCE)")
    create("new")
    second, lines = night(1)
    third, _ = night(2)
    assert [{each.database for each in one.databases} for one in (first, second, third)] == [
        {"app", "old"},
        {"app", "new"},
        {"app", "new"},
    ]
    assert [one.dropped for one in (first, second, third)] == [(), ("old",), ()], "reported once"
    assert second.status == "complete", "nothing is missing"
    assert "old no longer exists; its backups age out by the retention policy" in lines


def test_a_copy_of_a_set_names_the_copies(
    server: PostgresServer, create: Callable[..., None], here: Repository, tmp_path: Any
) -> None:
    create("app", "crm")
    away = open_repository((tmp_path / "away").as_uri())
    away.init()
    run = Run(server, here, found(server, databases=["app", "crm"]), seed="x").dump("app", "crm")
    written = run.write(with_globals=False)
    copies = [upload(reference=run.backups[0], source=here, destination=away)]
    with pytest.raises(RepositoryMismatch):
        run.write(repository=away, with_globals=False)
    copy = run.write(repository=away, backups=copies, with_globals=False, set_id=written.id)
    assert (copy.id, copy.status, reasons(copy.missing)) == (written.id, "partial", {"crm": "no backup was made"})
    assert copy.databases[0].key != written.databases[0].key
    assert away.stat(copy.databases[0].key) is not None
    with pytest.raises(PartialSet, match=rf"in {away.uri} is partial: missing crm \(no backup was made\)\.") as caught:
        require_complete((here, written), (away, copy))
    assert caught.value.message.startswith("backup set prod/@sets/")


def test_what_is_no_discovery_is_refused() -> None:
    for content in (None, [], {"databases": []}, {"started_at": 1}):
        with pytest.raises(ConfigurationError, match="not the result of a discovery"):
            Discovery.from_json(content)


def test_role_passwords_are_left_out_only_where_they_cannot_be_read(
    server: PostgresServer, run_sql: Callable[..., None], here: Repository
) -> None:
    run_sql("CREATE ROLE reader LOGIN PASSWORD 'x'", "CREATE ROLE someone LOGIN PASSWORD 'y'")
    try:
        for user, password in (("reader", "x"), (server.params.user, "secret")):
            lines: list[str] = []
            params = ConnectionParams.from_environment(
                {"PGPASSWORD": password}, host=server.params.host, port=server.params.port, user=user
            )
            reference = dump_cluster(
                connection=params,
                server=user,
                repository=here,
                options=DumpAllOptions(globals_only=True),
                passwords_if_allowed=True,
                context=RunContext(log=lines.append),
            )
            with here.read(str(reference["key"])) as stream:
                assert (b"PASSWORD 'SCRAM-SHA-256$" in stream.read()) == (user != "reader")
            said = [line for line in lines if "may not read role passwords; dumping roles without them" in line]
            assert len(said) == (user == "reader")
            missing = "role passwords (this role may not read them)"
            assert (missing in (load_manifest(here, reference).left_out or ())) == (user == "reader")
    finally:
        run_sql("DROP ROLE reader", "DROP ROLE someone")


def test_the_role_of_a_set_reads_the_passwords(
    server: PostgresServer, run_sql: Callable[..., None], here: Repository
) -> None:
    run_sql(
        "CREATE ROLE dumper NOLOGIN SUPERUSER",
        "CREATE ROLE backup LOGIN NOINHERIT PASSWORD 'x' IN ROLE dumper",
        "CREATE ROLE reader NOLOGIN",
    )
    try:
        for user, password, role in (("backup", "x", "dumper"), (server.params.user, "secret", "reader")):
            params = ConnectionParams.from_environment(
                {"PGPASSWORD": password}, host=server.params.host, port=server.params.port, user=user
            )
            made = dump_set(
                connection=params,
                server=user,
                repository=here,
                options=DumpOptions(role=role),
                databases=["template1"],
                level=None,
                labels=["release"],
            )
            assert made.globals is not None
            backup = read_evidence(here, made.globals.parsed_series, made.globals.id)
            assert backup.require_manifest().labels == ("release",)
            with here.read(str(reference_of(here, backup)["key"])) as stream:
                assert b"PASSWORD 'SCRAM-SHA-256$" in stream.read(), user
    finally:
        run_sql("DROP ROLE reader, backup, dumper")
