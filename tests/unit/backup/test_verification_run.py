"""What a verification records and says: each check, each way to fail, and what was not proven."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyrage
import pytest
from honest import manifest_of, write_backup, write_verification

from airflow_pgbackup.backup import verification_run
from airflow_pgbackup.backup.checked import CheckedArtifact, Expected
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.progress import NoProgress, Step
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.rehearsal.comparison import Rehearsal
from airflow_pgbackup.backup.sql_checks import CheckOutcome, SqlCheck
from airflow_pgbackup.backup.verification_run import VerificationRun
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.encryption.header import MAGIC
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.errors import Canceled, ConfigurationError, DiskError, NotProven, VerificationFailed
from airflow_pgbackup.postgres.archive.script_trailer import ScriptContinues
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.manifest import Encryption, FileDigest, Manifest, RowCount
from airflow_pgbackup.repository.verification import Check, Difference, TableResult, Verification
from airflow_pgbackup.settings import Settings

AT = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
APP = Series("prod", "app")
# The header of a custom archive: version 1.16, sizes of its numbers, format.
ARCHIVE = {"app.dump": b"PGDMP\1\x10\0\4\x08\1"}


@pytest.fixture
def manifest(repository: LocalRepository) -> Manifest:
    return write_backup(repository, APP, AT, looks=(), members=ARCHIVE)


def reference(repository: LocalRepository, manifest: Manifest) -> dict[str, object]:
    return reference_of(repository, read_evidence(repository, manifest.series, manifest.id))


def recorded(repository: LocalRepository, manifest: Manifest) -> list[Verification]:
    return list(read_evidence(repository, manifest.series, manifest.id).verifications)


# -- the request -------------------------------------------------------------------------------------------------------

ONE_DATABASE = "Choose level restore of the backup of one database."


@pytest.mark.parametrize(
    ("series", "asked", "message", "hint"),
    [
        (APP, {"level": "archiv"}, "invalid level 'archiv'", "Did you mean 'archive'?"),
        (APP, {"level": None}, "invalid level None", "Choose one of integrity, archive, restore."),
        (
            APP,
            {"scratch": ConnectionParams({"host": "h"})},
            "a scratch server cannot be combined with level archive",
            "Choose level restore, or leave it out.",
        ),
        (
            APP,
            {"level": "integrity", "checks": ["select true"]},
            "SQL checks cannot be combined with level integrity",
            ONE_DATABASE,
        ),
        (
            Series("prod", None),
            {"level": "restore", "checks": ["select true"]},
            "SQL checks cannot be combined with the backup of a cluster",
            ONE_DATABASE,
        ),
    ],
)
def test_what_cannot_be_asked_for(
    repository: LocalRepository, series: Series, asked: dict[str, Any], message: str, hint: str
) -> None:
    manifest = write_backup(repository, series, AT, looks=())
    with pytest.raises(ConfigurationError) as raised:
        verify(reference=reference(repository, manifest), repository=repository, **asked)
    assert (raised.value.message, raised.value.hint) == (message, hint)
    assert recorded(repository, manifest) == []


# -- integrity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "what"),
    [
        (ARCHIVE, "11 bytes in 1 file as dumped, by sha256"),
        ({"app.dir/toc.dat": b"123", "app.dir/1.dat": b"4"}, "4 bytes in 2 files as dumped, by sha256"),
    ],
)
def test_bytes_as_dumped(repository: LocalRepository, members: dict[str, bytes], what: str) -> None:
    manifest = write_backup(repository, APP, AT, looks=(), members=members)
    lines: list[str] = []
    seen: list[Verification] = []
    context = RunContext(log=lines.append, on_verification=seen.append, origin={"dag_id": "nightly"})
    found = verify(reference=reference(repository, manifest), repository=repository, level="integrity", context=context)
    assert found == {**reference(repository, manifest), "verified": "integrity"}
    (verification,) = recorded(repository, manifest)
    assert seen == [verification]
    assert (verification.level, verification.result, verification.origin) == (
        "integrity",
        "pass",
        {"dag_id": "nightly"},
    )
    assert verification.checks == (Check("integrity", "pass", what),)
    assert verification.artifact_sha256 == manifest.artifact.sha256
    assert (verification.backup_id, verification.client, verification.restore_seconds) == (manifest.id, None, None)
    assert verification.finished_at >= verification.started_at
    said = rf"backup prod/app/{manifest.id} verified at level integrity in [\d.]+ m?s: {re.escape(what)}"
    assert re.fullmatch(said, lines[-1]), lines[-1]


def test_bytes_that_changed(repository: LocalRepository) -> None:
    manifest = write_backup(repository, APP, AT, looks=(), members={"app.dir/toc.dat": b"123", "app.dir/1.dat": b"4"})
    folder = f"prod/app/{manifest.id}/app.dir"
    for name in ("toc.dat", "1.dat"):
        path = repository.local_path(f"{folder}/{name}")
        assert path
        path.write_bytes(b"5")
    with pytest.raises(VerificationFailed) as raised:
        verify(reference=reference(repository, manifest), repository=repository, level="integrity")
    error = raised.value
    (verification,) = recorded(repository, manifest)
    key = next(entry.key for entry in repository.list("prod") if "/verification-" in entry.key)
    first, second = (check.detail for check in verification.checks)
    assert [(check.name, check.result) for check in verification.checks] == [("integrity", "fail")] * 2
    assert first == "toc.dat: size mismatch: expected 3 bytes, found 1"
    expected, found = (hashlib.sha256(data).hexdigest() for data in (b"4", b"5"))
    assert second == f"1.dat: checksum mismatch: expected {expected}, found {found}"
    assert error.message == (
        f"backup prod/app/{manifest.id} in {repository.uri} failed verification at level integrity: "
        f"integrity: {first} (and 1 more, in {repository.location(key)})"
    )
    assert error.problems == [f"integrity: {first}", f"integrity: {second}"]
    assert error.hint == (
        "The bytes changed since the dump. Use another backup, and check the repository's storage for faults."
    )


def test_a_verification_that_another_outdates_is_said(repository: LocalRepository, manifest: Manifest) -> None:
    later = datetime.now(timezone.utc) + timedelta(days=2)
    write_verification(repository, manifest, "archive", "fail", later)
    lines: list[str] = []
    context = RunContext(log=lines.append)
    with pytest.raises(NotProven, match="passes level integrity, but does not count as verified: verification-"):
        verify(reference=reference(repository, manifest), repository=repository, level="integrity", context=context)
    ignored = read_evidence(repository, APP, manifest.id).ignored
    assert ignored
    assert [line for line in lines if line.startswith("warning")] == [f"warning: ignored {line}" for line in ignored]


def test_of_an_encrypted_dump_the_bytes_are_verified_without_an_identity(repository: LocalRepository) -> None:
    manifest = encrypted(write_backup(repository, APP, AT, looks=(), members={"app.dump.age": MAGIC}))
    path = repository.local_path(f"prod/app/{manifest.id}/manifest.json")
    assert path
    path.write_bytes(manifest.to_json())
    lines: list[str] = []
    context = RunContext(log=lines.append)
    verify(reference=reference(repository, manifest), repository=repository, level="integrity", context=context)
    assert lines[0] == "verifying the encrypted bytes of app.dump.age only: no identity was given"
    with pytest.raises(NotProven, match=NO_IDENTITY):
        verify(reference=reference(repository, manifest), repository=repository, level="restore")
    last = recorded(repository, manifest)[-1].checks[-1]
    assert (last.name, last.result) == ("restore", "notproven")
    assert str(last.detail).startswith("app.dump.age is encrypted, and no identity was given to decrypt it. HINT: ")


def test_what_is_not_recorded_of_an_encrypted_backup_is_logged(
    repository: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = encrypted(write_backup(repository, APP, AT, looks=(), members={"app.dump.age": MAGIC}))
    path = repository.local_path(f"prod/app/{manifest.id}/manifest.json")
    assert path
    path.write_bytes(manifest.to_json())

    def integrity(run: VerificationRun, *_: object) -> None:
        run.checks.append(Check("note", "pass", "nothing is quoted"))
        raise NotProven('invalid input: "ann@x.org"')

    monkeypatch.setattr(VerificationRun, "_integrity", integrity)
    lines: list[str] = []
    with pytest.raises(NotProven, match=r"ann@x\.org"):
        verify(
            reference=reference(repository, manifest),
            repository=repository,
            level="restore",
            context=RunContext(log=lines.append),
        )
    assert lines == [
        'restore: invalid input: "ann@x.org" (recorded without values, as the backup is encrypted)',
    ]
    assert [check.detail for check in recorded(repository, manifest)[-1].checks] == [
        "nothing is quoted",
        'invalid input: "…"',
    ]


PLAIN = FileDigest("app.dump", 3, "0" * 64)
NO_IDENTITY = r"^app\.dump\.age is encrypted, and no identity was given to decrypt it\. HINT: "


def encrypted(manifest: Manifest, file: FileDigest = PLAIN) -> Manifest:
    artifact = replace(
        manifest.artifact,
        encryption=Encryption("age", ("age1x",), (file,)),
        compression=replace(manifest.artifact.compression, by="airflow-pgbackup"),
    )
    return replace(manifest, artifact=artifact)


# -- archive -----------------------------------------------------------------------------------------------------------

SCRIPT = b"""\
--
-- PostgreSQL database dump
--

COPY public.film (id) FROM stdin;
1
2
\\.


--
-- PostgreSQL database dump complete
--

"""


class Steps(NoProgress):
    """Keeps the steps that ended, and cancels when one of a name begins."""

    def __init__(self, cancel: Cancel | None = None, at: str = "") -> None:
        self.ended: list[Step] = []
        self._cancel = cancel
        self._at = at

    def begin(self, step: Step) -> None:
        if self._cancel and step.what.startswith(self._at):
            self._cancel.set()

    def end(self, step: Step) -> None:
        self.ended.append(step)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, client: Client) -> Client:
    monkeypatch.setattr(verification_run, "choose_reader", lambda *_: client)
    return client


@pytest.fixture
def script(repository: LocalRepository) -> Manifest:
    return write_backup(repository, APP, AT, looks=(), members={"app.sql": SCRIPT})


@pytest.mark.usefixtures("reader")
def test_an_archive_that_is_read_to_its_end(repository: LocalRepository, script: Manifest) -> None:
    steps, lines = Steps(), list[str]()
    context = RunContext(log=lines.append, progress=steps)
    assert verify(reference=reference(repository, script), repository=repository, context=context)["verified"] == (
        "archive"
    )
    (verification,) = recorded(repository, script)
    size = len(SCRIPT)
    read = "1 table with 2 rows read to the end"
    assert verification.checks == (
        Check("integrity", "pass", f"{size} bytes in 1 file as dumped, by sha256"),
        Check("archive", "pass", read),
    )
    assert [(table.name, table.rows, table.result) for table in verification.tables] == [("film", 2, "pass")]
    assert lines[-1].endswith(f": {size} bytes in 1 file as dumped, by sha256, {read}")
    assert [(step.what, step.bytes_total, step.estimated, step.bytes) for step in steps.ended] == [
        ("hashing app.sql", size, False, size),
        ("reading app.sql", size, False, size),
    ]


@pytest.mark.usefixtures("reader")
def test_an_archive_that_is_cut(repository: LocalRepository) -> None:
    manifest = write_backup(repository, APP, AT, looks=(), members={"app.sql": SCRIPT[:-50]})
    with pytest.raises(VerificationFailed) as raised:
        verify(reference=reference(repository, manifest), repository=repository)
    (verification,) = recorded(repository, manifest)
    wrong = "the dump ends inside the table data of the statement at byte 35: COPY public.film (id) FROM stdin;"
    assert verification.checks[1:] == (Check("archive", "fail", wrong),)
    assert raised.value.message == (
        f"backup prod/app/{manifest.id} in {repository.uri} failed verification at level archive: archive: {wrong}"
    )


@pytest.mark.parametrize("level", ["archive", "restore"])
def test_an_archive_whose_names_lead_out_of_it(repository: LocalRepository, level: str) -> None:
    """PostgreSQL's tools do not open it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("toc.dat", "../1.dat"):
            tar.addfile(tarfile.TarInfo(name))
    manifest = write_backup(repository, APP, AT, looks=(), members={"app.tar": file.getvalue()})
    with pytest.raises(VerificationFailed, match=r"\.\./1\.dat"):
        verify(reference=reference(repository, manifest), repository=repository, level=level)
    (verification,) = recorded(repository, manifest)
    (check,) = verification.checks
    assert (check.name, check.result) == (level, "fail")
    assert "../1.dat" in str(check.detail)


@pytest.mark.usefixtures("reader")
def test_an_encrypted_archive_is_decrypted_by_the_identities(repository: LocalRepository, tmp_path: Path) -> None:
    owner = pyrage.x25519.Identity.generate()
    stored = pyrage.encrypt(SCRIPT, [owner.to_public()])
    made = write_backup(repository, APP, AT, looks=(), members={"app.sql.age": stored})
    manifest = encrypted(made, FileDigest("app.sql", len(SCRIPT), hashlib.sha256(SCRIPT).hexdigest()))
    given = RunContext(identities=Identities((owner,)))
    assert VerificationRun(repository, manifest, "archive", None, (), given).run().result == "pass"
    unreadable = RunContext(settings=Settings(identity_file=str(tmp_path / "missing")))
    with pytest.raises(ConfigurationError):
        VerificationRun(repository, manifest, "archive", None, (), unreadable).run()
    assert VerificationRun(repository, manifest, "integrity", None, (), unreadable).run().result == "pass"


def test_changed_bytes_are_a_failure_where_the_identity_cannot_be_read(repository: LocalRepository) -> None:
    """As on a worker that does not get Airflow's connection with the key."""

    def identities() -> Identities:
        raise NotProven("Airflow finds no connection")

    stored = pyrage.encrypt(SCRIPT, [pyrage.x25519.Identity.generate().to_public()])
    made = write_backup(repository, APP, AT, looks=(), members={"app.sql.age": stored})
    manifest = encrypted(made, FileDigest("app.sql", len(SCRIPT), hashlib.sha256(SCRIPT).hexdigest()))
    context = RunContext(identities=identities)
    found = VerificationRun(repository, manifest, "archive", None, (), context).run()
    assert [(check.name, check.result) for check in found.checks] == [("integrity", "pass"), ("archive", "notproven")]
    assert found.checks[1].detail == "Airflow finds no connection"
    path = repository.local_path(manifest.key(manifest.artifact.files[0]))
    assert path
    path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    assert VerificationRun(repository, manifest, "archive", None, (), context).run().result == "fail"


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(("level", "at"), [("integrity", "hashing"), ("archive", "reading")])
def test_a_verification_that_is_canceled(repository: LocalRepository, script: Manifest, level: str, at: str) -> None:
    cancel = Cancel()
    context = RunContext(cancel=cancel, progress=Steps(cancel, at))
    with pytest.raises(Canceled):
        VerificationRun(repository, script, level, None, (), context).run()


def test_the_messages_of_pg_restore_are_logged(repository: LocalRepository, reader: Client, tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(SCRIPT)
    reader.tool("pg_restore").write_text(
        f"#!/bin/sh\ncat > {tmp_path}/stdin\necho pg_restore: warning: odd >&2\ncat {tmp_path}/output\n"
    )
    newer = b"PGDMP\1\x63\0\4\x08\1"
    manifest = write_backup(repository, APP, AT, looks=(), members={"app.dump": newer})
    lines: list[str] = []
    run = VerificationRun(repository, manifest, "archive", None, (), RunContext(log=lines.append))
    assert run.run().result == "pass"
    assert (tmp_path / "stdin").read_bytes() == newer
    assert "pg_restore: warning: odd" in lines


# -- restore -----------------------------------------------------------------------------------------------------------

Restored = Callable[..., tuple[VerificationRun, Verification]]
TABLES = [TableResult(schema="public", name="film", rows=1000, sha256=None, result="pass")]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "pg_restore").touch(0o755)
    return Client(directory, (18, 4), "PATH")


@pytest.fixture
def restored(
    monkeypatch: pytest.MonkeyPatch, repository: LocalRepository, manifest: Manifest, client: Client
) -> Restored:
    """Verify at level restore, with a rehearsal that finds this."""

    def verified(
        found: Rehearsal | Exception,
        source_rows: Iterable[RowCount] | None = None,
        manifest: Manifest = manifest,
    ) -> tuple[VerificationRun, Verification]:
        def rehearse(*_: object, reader: Client, **__: object) -> Rehearsal:
            assert reader is client
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(verification_run, "rehearse", rehearse)
        monkeypatch.setattr(verification_run, "choose_reader", lambda *_: client)
        rows = None if source_rows is None else tuple(source_rows)
        run = VerificationRun(repository, replace(manifest, source_rows=rows), "restore", None, (), RunContext())
        return run, run.run()

    return verified


def outcome(name: str, result: str, detail: str, required: bool = True) -> CheckOutcome:
    return CheckOutcome(SqlCheck(name, "select 1", required), result, detail)


INTEGRITY = Check("integrity", "pass", "11 bytes in 1 file as dumped, by sha256")
RESTORED = Check(
    "restore",
    "pass",
    "restored into PostgreSQL 18.4 in 1 min 30 s, 1 table with 1,000 rows and every definition as dumped",
)


def rehearsal(**changes: Any) -> Rehearsal:
    return Rehearsal(**{"tables": TABLES, "restore_seconds": 90.0, "server_version": "18.4", **changes})


def test_a_backup_that_restores(restored: Restored, client: Client) -> None:
    found = rehearsal(
        notes=["uncontained"],
        checks=[
            outcome("a", "pass", "true"),
            outcome("b", "fail", "false", required=False),
            outcome("c", "pass", "true", required=False),
        ],
    )
    run, verification = restored(found, [RowCount("public", "film", 1000)])
    assert verification.result == "pass"
    assert (run.hint, run.not_proven) == (None, None)
    assert verification.checks == (
        INTEGRITY,
        Check("note", "pass", "uncontained"),
        Check("source", "pass", "1 table with the source's rows"),
        RESTORED,
        Check("sql check 'a'", "pass", "true"),
        Check("note", "pass", "sql check 'b': false; it is not required"),
        Check("sql check 'c'", "pass", "true"),
    )
    assert verification.tables == tuple(TABLES)
    assert verification.restore_seconds == 90.0
    assert verification.client
    assert (verification.client.tool, verification.client.version) == ("pg_restore", "18.4")
    assert verification.client.path == str(client.bin_dir / "pg_restore")


@pytest.mark.parametrize(
    ("options", "rounded"),
    [
        ({"extra_float_digits": 0}, "extra_float_digits 0"),
        ({"extra_float_digits": -15}, "extra_float_digits -15"),
        ({"extra_float_digits": 1}, None),
        ({}, None),
    ],
)
def test_rounded_values_are_not_called_those_of_the_source(
    restored: Restored,
    manifest: Manifest,
    options: dict[str, object],
    rounded: str | None,
) -> None:
    _, verification = restored(rehearsal(), manifest=replace(manifest, options=options))
    more = f"; the dump rounded floating-point values ({rounded})" if rounded else ""
    assert verification.checks == (INTEGRITY, replace(RESTORED, detail=RESTORED.detail + more))


def test_what_a_rehearsal_is_given(
    monkeypatch: pytest.MonkeyPatch, repository: LocalRepository, manifest: Manifest, reader: Client, tmp_path: Path
) -> None:
    given: dict[str, object] = {}

    def rehearse(artifact: Path, manifest: Manifest, **more: object) -> Rehearsal:
        assert artifact.is_relative_to(tmp_path / "copies")
        assert artifact.read_bytes() == ARCHIVE["app.dump"]
        given.update(more)
        return rehearsal(checks=[outcome("a", "pass", "true")])

    monkeypatch.setattr(verification_run, "rehearse", rehearse)
    (tmp_path / "copies").mkdir()
    context = RunContext(settings=Settings(temp_dir=str(tmp_path / "copies")))
    scratch = ConnectionParams({"host": "h"})
    found = verify(
        reference=reference(repository, manifest),
        repository=repository,
        level="restore",
        scratch=scratch,
        checks=[SqlCheck("a", "select true")],
        context=context,
    )
    assert found["verified"] == "restore"
    assert given == {
        "reader": reader,
        "scratch": scratch,
        "checks": (SqlCheck("a", "select true"),),
        "context": context,
    }


COMPARE = "It restores. Restore it beside the source, and compare what the message names."
DIFFERENT = "It restores, but differs from the dump. Make a new dump, and compare the objects in the report."


@pytest.mark.parametrize(
    ("found", "source", "checks", "hint"),
    [
        (
            rehearsal(
                differences=[Difference("index", "public.a", "is missing"), Difference("table", "public.b", "x")]
            ),
            None,
            [Check("restore", "fail", "index public.a is missing"), Check("restore", "fail", "table public.b x")],
            DIFFERENT,
        ),
        (
            rehearsal(),
            [RowCount("public", "film", 1001)],
            [
                Check(
                    "source",
                    "fail",
                    "table public.film: row count mismatch: expected 1,001 as in the source, found 1,000",
                )
            ],
            "The archive lacks rows of its source. Make a new dump, and check how this one was made.",
        ),
        (
            rehearsal(checks=[outcome("a", "notproven", "no table x"), outcome("b", "fail", "false")]),
            None,
            [
                RESTORED,
                Check("sql check 'a'", "notproven", "no table x"),
                Check("sql check 'b'", "fail", "false"),
            ],
            "The backup restores, but its data is not what this check expects. Check the source.",
        ),
        (
            VerificationFailed("the archive ends early"),
            None,
            [Check("restore", "fail", "the archive ends early")],
            "Do not rely on this backup; make a new dump.",
        ),
        (
            VerificationFailed("the archive ends early", hint="Look."),
            None,
            [Check("restore", "fail", "the archive ends early")],
            "Look.",
        ),
    ],
)
def test_a_backup_that_fails(
    restored: Restored,
    found: Rehearsal | Exception,
    source: list[RowCount] | None,
    checks: list[Check],
    hint: str,
) -> None:
    run, verification = restored(found, source)
    assert (verification.result, list(verification.checks)) == ("fail", [INTEGRITY, *checks])
    assert (run.hint, run.not_proven) == (hint, None)
    if isinstance(found, Rehearsal):
        assert verification.differences == tuple(found.differences)


@pytest.mark.parametrize(
    ("found", "checks", "message", "hint"),
    [
        (
            rehearsal(checks=[outcome("a", "notproven", "no table x"), outcome("b", "pass", "true")]),
            [RESTORED, Check("sql check 'a'", "notproven", "no table x"), Check("sql check 'b'", "pass", "true")],
            "sql check 'a': no table x",
            "The backup restores. Correct the check, then verify again.",
        ),
        (
            NotProven("no server here", hint="Install one."),
            [Check("restore", "notproven", "no server here. HINT: Install one.")],
            "no server here",
            "Install one.",
        ),
        (
            DiskError("the disk is full", hint="Make room."),
            [Check("restore", "notproven", "the disk is full. HINT: Make room.")],
            "the disk is full",
            "Make room.",
        ),
        (
            rehearsal(unproven=["table a: its extension is of another version", "table b differs"]),
            [
                Check(
                    "restore",
                    "notproven",
                    "table a: its extension is of another version. "
                    "HINT: Rehearse on a server with the version of the source (scratch_conn_id, --scratch).",
                )
            ],
            "table a: its extension is of another version",
            "Rehearse on a server with the version of the source (scratch_conn_id, --scratch).",
        ),
        (
            rehearsal(unproven=["table b differs"]),
            [Check("restore", "notproven", f"table b differs. HINT: {COMPARE}")],
            "table b differs",
            COMPARE,
        ),
    ],
)
def test_a_backup_that_is_not_proven(
    restored: Restored, found: Rehearsal | Exception, checks: list[Check], message: str, hint: str
) -> None:
    run, verification = restored(found)
    assert (verification.result, list(verification.checks)) == ("notproven", [INTEGRITY, *checks])
    assert run.not_proven
    assert (run.not_proven.message, run.not_proven.hint, run.hint) == (message, hint, None)


def test_what_follows_the_dump_in_a_script_of_somebody_else_proves_nothing(
    restored: Restored, manifest: Manifest
) -> None:
    continues = ScriptContinues("the script continues after the trailer of the dump")
    adopted = replace(manifest, origin={"adopted_from": "/backups/app.sql"})
    run, verification = restored(continues, manifest=adopted)
    assert (verification.result, run.hint) == ("notproven", None)
    assert run.not_proven
    assert (run.not_proven.message, run.not_proven.hint) == (
        "the script continues after the trailer of the dump",
        "The dump before that is complete. Test the script with psql, or adopt it without the rest.",
    )
    assert restored(continues)[1].result == "fail", "nobody else made it"
    assert restored(VerificationFailed("the archive ends early"), manifest=adopted)[1].result == "fail"


@pytest.mark.parametrize("level", ["archive", "restore"])
def test_a_full_disk_here_proves_nothing(
    repository: LocalRepository, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    @contextmanager
    def full(*_: object, **__: object) -> Iterator[None]:
        raise DiskError("the disk is full", hint="Make room.")
        yield

    monkeypatch.setattr(verification_run, "open_checked", full)
    run = VerificationRun(repository, manifest, level, None, (), RunContext())
    if level == "archive":
        with pytest.raises(DiskError, match="the disk is full"):
            run.run()
    else:
        assert run.run().checks == (Check("restore", "notproven", "the disk is full. HINT: Make room."),)
        assert run.not_proven
        assert (run.not_proven.message, run.not_proven.hint) == ("the disk is full", "Make room.")


# -- the artifact that was checked -------------------------------------------------------------------------------------


def test_an_artifact_without_a_private_copy(repository: LocalRepository, manifest: Manifest) -> None:
    with pytest.raises(RuntimeError, match=r"^this artifact was checked without a private copy$"):
        _ = CheckedArtifact(repository, manifest, {}).private_path
    secret = encrypted(manifest_of(repository, APP, AT, {"app.dump.age": MAGIC}))
    with pytest.raises(NotProven, match=NO_IDENTITY):
        _ = CheckedArtifact(repository, secret, {}).private_path


def test_decrypted_bytes_are_those_of_the_manifest(repository: LocalRepository) -> None:
    (file,) = manifest_of(repository, APP, AT, {"app.dump": b"12345"}).artifact.files
    whole = Expected(io.BytesIO(b"12345"), file)
    assert [whole.read(0), whole.read(2), whole.read(9), whole.read(2)] == [b"", b"12", b"345", b""]
    assert Expected(io.BytesIO(b"12345"), file).read() == b"12345"
    for other in (b"1234", b"12346", b"123456", b""):
        read = Expected(io.BytesIO(other), file)
        with pytest.raises(VerificationFailed) as raised:
            list(iter(lambda: read.read(3), b""))  # noqa: B023
        assert raised.value.message == "app.dump does not decrypt to the bytes that were dumped"
    for other, said in ((b"12346", "checksum mismatch: expected"), (b"1234", "mismatch"), (b"123456", "more than 5 b")):
        read = Expected(io.BytesIO(other), file, stored=True)
        with pytest.raises(VerificationFailed, match=said):
            list(iter(lambda: read.read(3), b""))  # noqa: B023


@pytest.mark.parametrize("format", ["tar", "directory"])
@pytest.mark.parametrize("damage", ["a flipped bit in the header", "encrypted to another key"])
def test_changed_bytes_that_no_identity_decrypts_are_a_failure(
    repository: LocalRepository, format: str, damage: str
) -> None:
    """Of a member of a directory, also if the others need another identity."""
    owner, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    names = ["app.tar.age"] if format == "tar" else ["app.dir.age/toc.dat.age", "app.dir.age/1.dat.age"]
    stored = {name: pyrage.encrypt(b"x" * 1000, [owner.to_public()]) for name in names}
    manifest = write_backup(repository, APP, AT, looks=(), members=stored)
    plain = tuple(
        FileDigest(file.path.removesuffix(".age"), 1000, hashlib.sha256(b"x" * 1000).hexdigest())
        for file in manifest.artifact.files
    )
    artifact = replace(manifest.artifact, encryption=Encryption("age", (str(owner.to_public()),), plain))
    manifest = replace(manifest, artifact=artifact)
    given = RunContext(identities=Identities((other,)))
    assert VerificationRun(repository, manifest, "archive", None, (), given).run().result == "notproven"
    path = repository.local_path(manifest.key(manifest.artifact.files[-1]))
    assert path
    data = bytearray(path.read_bytes())
    if damage == "encrypted to another key":
        stranger = pyrage.x25519.Identity.generate()
        data[:] = pyrage.encrypt(b"y" * 2000, [stranger.to_public()])[: len(data)]
    else:
        data[60] = ord("A") + (data[60] == ord("A"))
    path.write_bytes(data)
    for identity in (owner, other):
        context = RunContext(identities=Identities((identity,)))
        found = VerificationRun(repository, manifest, "archive", None, (), context).run()
        assert found.result == "fail"
        assert "checksum mismatch: expected" in str(found.checks[0].detail)
