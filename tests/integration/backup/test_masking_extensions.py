"""Masking and the tables of extensions: pg_dump dumps the rows of those that are declared as configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from restoring import fresh_server, value

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.mask import check_rules, propose_rules
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.refresh import refresh
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

KEY = MaskingKey(b"a key of the tests, long enough")
CONTACTS = "create table contact (id int, email text);\ncreate table inner_state (email text);\n"
REGISTERED = CONTACTS + "select pg_extension_config_dump('contact', '');\n"
REFERENCE = (
    "create table spatial_ref_sys (srid int, email text);\nselect pg_extension_config_dump('spatial_ref_sys', '');\n"
)
RULES = "tables_without_rules: fail\ncolumns:\n  '*.*.email': {fake: email}\n  '*.*.id': keep\n"


@dataclass
class Extensions:
    """A server with extensions of this test; their folder."""

    server: PostgresServer
    folder: Path

    def write(self, name: str, script: str, version: str = "1") -> None:
        (self.folder / f"{name}.control").write_text(f"default_version = '{version}'\n")
        (self.folder / f"{name}--{version}.sql").write_text(script)


@pytest.fixture(scope="module")
def extensions() -> Iterator[Extensions]:
    with tempfile.TemporaryDirectory() as name:  # which a server of another user may read
        shared = Path(name)
        shared.chmod(0o755)
        folder = shared / "extension"
        folder.mkdir()
        settings = {"extension_control_path": f"$system:{shared}"}
        with fresh_server(18, password="secret", tcp=True, settings=settings) as server:
            yield Extensions(server, folder)


@pytest.fixture
def source(extensions: Extensions, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    extensions.write("crm", REGISTERED)
    extensions.write("postgis", REFERENCE)
    return fresh_database(
        extensions.server,
        None,
        "create extension crm",
        "create extension postgis",
        "insert into contact select n, 'vip' || n || '@secret.example' from generate_series(1, 20) n",
        "insert into inner_state values ('vip1@secret.example')",
        "insert into spatial_ref_sys values (990000, 'x')",
    )


def test_rules_are_for_the_tables_of_an_extension_whose_rows_are_dumped(source: ConnectionParams) -> None:
    report = check_rules(connection=source, rules=load_rules(RULES))
    assert (report.problems, report.masked) == ((), 1)
    report = check_rules(connection=source, rules=load_rules(RULES.replace("  '*.*.id': keep\n", "")))
    assert [problem.split(": ", 1)[1] for problem in report.problems] == [
        "public.contact.id: no rule, but other columns of its table have one; add keep or another"
    ]
    report = check_rules(connection=source, rules=load_rules("columns:\n  public.contact.*: keep\n"))
    assert report.personal == ("public.contact.email: holds mail addresses, and is kept",)
    text = propose_rules(connection=source)
    assert "  public.contact.email: {fake: email}" in text
    assert "inner_state" not in text
    assert "spatial_ref_sys" not in text


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_rows_of_an_extension_are_masked(
    extensions: Extensions,
    source: ConnectionParams,
    fresh_database: Callable[..., ConnectionParams],
    repository: Repository,
    version: str,
) -> None:
    """Also where the server of the copy has a version of the extension that declares nothing."""
    made = dump_database(connection=source, server="prod", repository=repository, options=DumpOptions())
    reference = verify(reference=made, repository=repository, level="archive")
    staging = fresh_database(extensions.server)
    if version == "2":
        extensions.write("crm", CONTACTS, version)
    done = refresh(
        reference=reference,
        repository=repository,
        target=staging,
        rules=load_rules(RULES),
        masking_key=KEY,
        keep=0,
    )
    assert done["masked_columns"] == 1
    assert value(staging, "select extversion from pg_extension where extname = 'crm'") == version
    assert value(staging, "select count(*) from contact where email like '%@example.com'") == 20
