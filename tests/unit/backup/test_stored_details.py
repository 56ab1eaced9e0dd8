"""What a verification of an encrypted backup stores: nothing from its rows or definitions. The log has all of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pyrage
import pytest
from honest import verification_of, write_backup

from airflow_pgbackup.backup import verification_run
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.rehearsal.comparison import Rehearsal
from airflow_pgbackup.backup.rewrapped import carried_over
from airflow_pgbackup.backup.sql_checks import CheckOutcome, SqlCheck
from airflow_pgbackup.backup.stored_details import stored_details
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Encryption, FileDigest, Manifest
from airflow_pgbackup.repository.verification import Check, Difference

AT = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
APP = Series("prod", "app")
OWNER = pyrage.x25519.Identity.generate()
PLAIN = b"PGDMP\1\x10\0\4\x08\1"


@pytest.fixture
def repository(tmp_path: Path) -> LocalRepository:
    made = LocalRepository(tmp_path / "repository")
    made.init()
    return made


@pytest.fixture
def secret(repository: LocalRepository) -> Manifest:
    """An encrypted backup."""
    stored = pyrage.encrypt(PLAIN, [OWNER.to_public()])
    made = write_backup(repository, APP, AT, looks=(), members={"app.dump.age": stored})
    plain = FileDigest("app.dump", len(PLAIN), hashlib.sha256(PLAIN).hexdigest())
    artifact = replace(made.artifact, encryption=Encryption("age", (str(OWNER.to_public()),), (plain,)))
    manifest = replace(made, artifact=artifact)
    repository.local_path(f"prod/app/{manifest.id}/manifest.json").write_bytes(manifest.to_json())
    return manifest


@pytest.mark.parametrize(
    ("check", "stored"),
    [
        (Check("sql check 'a'", "pass", 'true, {"last": "ann@x.org"}'), "true"),
        (Check("sql check 'a'", "fail", 'NULL, {"last": null}'), "NULL"),
        (Check("sql check 'a'", "notproven", 'invalid input syntax for type integer: "4711 a"'), None),
        (Check("note", "pass", 'sql check \'a\': false, {"last": "x"}; it is not required'), "sql check 'a': false"),
        (
            Check("note", "pass", 'sql check "today\'s": false, {"last": "ann@x.org"}; it is not required'),
            'sql check "today\'s": false',
        ),
        (
            Check("note", "pass", "sql check 'a': invalid input: \"ann@x.org\"; it is not required"),
            "sql check 'a': invalid input: \"…\"",
        ),
        (
            Check("note", "pass", 'restores with one job; error with 4: table "t": ERROR:  invalid input: "ann@x.org"'),
            'restores with one job; error with 4: table "t": ERROR:  invalid input: "…"',
        ),
        (
            Check("note", "pass", "restores with one job; error with 4: FEHLER:  ungültige Eingabe: »ann@x.org«"),
            'restores with one job; error with 4: FEHLER:  ungültige Eingabe: "…"',
        ),
        (
            Check("note", "pass", 'restores with one job; error with 4: "a:  b": ERROR:  invalid input: "ann@x.org"'),
            'restores with one job; error with 4: "…"',
        ),
        (Check("note", "pass", 'view "a" was left out'), 'view "a" was left out'),
        (Check("sql check 'a'", "notproven", 'invalid input: "ann@x.org, {1}"'), 'invalid input: "…"'),
        (Check("sql check 'a'", "notproven", 'invalid input: "ann ERROR: x"'), 'invalid input: "…"'),
        (Check("sql check 'a'", "notproven", "ungültige Eingabe: »ann@x.org«"), 'ungültige Eingabe: "…"'),
        (Check("sql check 'a'", "notproven", "its first column is not boolean"), "its first column is not boolean"),
        (Check("restore", "fail", 'it cannot be restored: pg_restore: error: ERROR:  bad value "x, y"'), None),
        (Check("restore", "notproven", 'h: value "1,23" is out of range for type money. HINT: Take another.'), None),
        (
            Check("restore", "fail", "view public.v its definition differs: dumped: SELECT 'x'; restored: SELECT 'y'"),
            "view public.v its definition differs",
        ),
        (
            Check("restore", "pass", 'restored into PostgreSQL 18.4, table "a"'),
            'restored into PostgreSQL 18.4, table "a"',
        ),
    ],
)
def test_a_detail(secret: Manifest, check: Check, stored: str | None) -> None:
    quoted = {
        "sql check 'a'": 'invalid input syntax for type integer: "…"',
        "fail": 'it cannot be restored: pg_restore: error: ERROR:  bad value "…"',
        "notproven": 'h: value "…" is out of range for type money. HINT: Take another.',
    }
    stored = stored or quoted.get(check.name) or quoted[check.result]
    difference = Difference("view", "public.v", "its definition differs: dumped: SELECT 'x'; restored: SELECT 'y'")
    report = replace(verification_of(secret, "restore", "fail", AT), checks=(check,), differences=(difference,))
    kept = stored_details(report, secret)
    assert kept.checks == (replace(check, detail=stored),)
    assert kept.differences == (replace(difference, detail="its definition differs"),)
    plain = replace(secret, artifact=replace(secret.artifact, encryption=None))
    assert stored_details(report, plain) == report
    carried = carried_over(report, plain, secret)
    assert carried is not None
    assert replace(check, detail=stored) in carried.checks


def test_the_log_has_what_is_not_stored(
    secret: Manifest, repository: LocalRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pg_restore").touch(0o755)
    check = SqlCheck("last order", "select false, email from customer")
    found = Rehearsal(
        tables=[],
        restore_seconds=1.0,
        server_version="18.4",
        checks=[CheckOutcome(check, "fail", 'false, {"email": "ann@example.org"}')],
    )
    monkeypatch.setattr(verification_run, "rehearse", lambda *_, **__: found)
    monkeypatch.setattr(verification_run, "choose_reader", lambda *_: Client(tmp_path, (18, 4), "PATH"))
    lines: list[str] = []
    reference = reference_of(repository, read_evidence(repository, APP, secret.id))
    with pytest.raises(VerificationFailed, match="sql check 'last order'"):
        verify(
            reference=reference,
            repository=repository,
            level="restore",
            checks=[check],
            context=RunContext(identities=Identities((OWNER,)), log=lines.append),
        )
    assert any("ann@example.org" in line for line in lines)
    (stored,) = repository.local_path(f"prod/app/{secret.id}").glob("verification-*")
    assert "ann@example.org" not in stored.read_text()
    assert read_evidence(repository, APP, secret.id).verifications[-1].checks[-1].detail == "false"
