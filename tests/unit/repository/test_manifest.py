from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_pgbackup.errors import ConfigurationError, ManifestError
from airflow_pgbackup.repository.backup_set import Absent, BackupSet, SetMember
from airflow_pgbackup.repository.json_document import MOST_VALUES
from airflow_pgbackup.repository.labels import check_labels
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import (
    MAX_BYTES,
    Artifact,
    ClientInfo,
    DatabaseSource,
    Document,
    Encryption,
    FileDigest,
    Manifest,
    RecordedCompression,
    RepositoryFile,
    RowCount,
    StandbyReplay,
    directory_sha256,
)
from airflow_pgbackup.repository.source_roles import RecordedMembership, SourceRoles
from airflow_pgbackup.repository.verification import Check, Difference, TableResult, Verification

GOLDEN = Path(__file__).parents[2] / "golden"
UUID = "0b9f3f3e-1c44-4c6c-9a4e-5f7d1a2b3c4d"
AT = datetime(2026, 11, 22, 2, 0, tzinfo=timezone.utc)
SHA = hashlib.sha256(b"").hexdigest()
PG_DUMP = ClientInfo("pg_dump", "18.4", "/usr/lib/postgresql/18/bin/pg_dump")

DATABASE = Manifest(
    repository=UUID,
    series=Series("postgres_default", "dvdrental"),
    id="20261122T020000Z-3f9ac1",
    kind="database",
    started_at=AT,
    finished_at=AT + timedelta(seconds=4, milliseconds=250),
    duration_seconds=4.25,
    artifact=Artifact(
        name="dvdrental_2026-11-22_0200.dump",
        format="custom",
        compression=RecordedCompression("zstd", 3, "pg_dump"),
        size=734003,
        sha256=SHA,
        files=(FileDigest("dvdrental_2026-11-22_0200.dump", 734003, SHA),),
        attempt="7d41c09e",
    ),
    source=DatabaseSource(
        database="dvdrental",
        server_version="18.4",
        server_version_num=180004,
        size_bytes=15728640,
        encoding="UTF8",
        host="db.example",
        extensions={"plpgsql": "1.0", "postgis": "3.4.2"},
        service="Amazon RDS for PostgreSQL",
        replay=StandbyReplay(1024, 0.25),
        system_identifier="7571962531458392113",
        roles=SourceRoles(
            superusers=("postgres",), bypass_rls=("auditor",), memberships=(RecordedMembership("lesende Rolle", "app"),)
        ),
        time_zone="Europe/Berlin",
    ),
    client=PG_DUMP,
    options={"exclude_tables": ["public.log_*"], "no_owner": True, "compress": "zstd:3"},
    origin={"dag_id": "nightly", "task_id": "dump", "run_id": "scheduled__2026-11-22T02:00:00+00:00", "map_index": -1},
    restore_command="pg_restore -d dvdrental dvdrental_2026-11-22_0200.dump",
    source_rows=(RowCount("public", "film", 1000), RowCount("öffentlich", "таблица\n2", 0)),
    left_out=("table public.log_2025 (exclude_tables)",),
    labels=("pre-migration", "v1.2_final"),
)

RECIPIENT = "age1jj3walya49nny598a9t8f27wkaszedrzfujfvns6l0t2suyz9e2spp806z"
ENCRYPTED = replace(
    DATABASE,
    artifact=replace(
        DATABASE.artifact,
        name="dvdrental_2026-11-22_0200.dump.age",
        size=734403,
        files=(FileDigest("dvdrental_2026-11-22_0200.dump.age", 734403, SHA),),
        encryption=Encryption("age", (RECIPIENT, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"), DATABASE.artifact.files),
    ),
)

MEMBERS = (FileDigest("3456.dat.zst", 20, SHA), FileDigest("blob_1.dat", 0, SHA), FileDigest("toc.dat", 11, SHA))
CLUSTER = replace(
    DATABASE,
    series=Series("postgres_default", None),
    kind="cluster",
    artifact=Artifact(
        name="cluster_2026-11-22_0200.dir",
        format="directory",
        compression=RecordedCompression(None, None, None),
        size=31,
        sha256=directory_sha256(MEMBERS),
        files=MEMBERS,
        attempt="00c0ffee",
    ),
    source=DatabaseSource(
        database=None, server_version="16.14", server_version_num=160014, size_bytes=None, encoding=None, host=None
    ),
    source_rows=None,
    left_out=None,
    labels=(),
)
ROLES = replace(
    CLUSTER,
    series=Series("postgres_default", None, "roles"),
    artifact=replace(DATABASE.artifact, name="roles_2026-11-22_0200.sql", format="plain"),
    options={"roles_only": True},
)
ROLES = replace(ROLES, artifact=replace(ROLES.artifact, files=(FileDigest(ROLES.artifact.name, 734003, SHA),)))

VERIFICATION = Verification(
    backup_id="20261122T020000Z-3f9ac1",
    level="restore",
    result="fail",
    started_at=AT,
    finished_at=AT + timedelta(seconds=60),
    duration_seconds=60,
    checks=(Check("sha256", "pass"), Check("restore", "fail", "1 index differs")),
    tables=(
        TableResult(schema="public", name="film", rows=1000, sha256=SHA, result="pass"),
        TableResult(
            database="other", schema="public", name="x", rows=0, sha256=None, result="notproven", detail="foreign data"
        ),
    ),
    differences=(Difference("index", "public.film_title_idx", "is not there after the restore"),),
    restore_seconds=12.5,
    client=PG_DUMP,
    origin={"dag_id": "drill"},
    artifact_sha256=SHA,
)

SET_ID = "20261122T015900Z-a1b2c3"
SET = BackupSet(
    id=SET_ID,
    server="postgres_default",
    status="partial",
    started_at=AT - timedelta(minutes=1),
    finished_at=AT + timedelta(minutes=30, microseconds=123456),
    server_version="18.4",
    origin={"dag_id": "nightly", "task_id": "cluster.set", "run_id": "manual", "map_index": -1},
    globals=SetMember(
        series="postgres_default/@globals",
        id="20261122T020000Z-0a0b0c",
        database=None,
        size=4096,
        sha256=SHA,
        key="postgres_default/@globals/20261122T020000Z-0a0b0c/7d41c09e/globals_2026-11-22_0200.sql",
        level="archive",
    ),
    databases=(
        SetMember(
            series="postgres_default/dvdrental",
            id=DATABASE.id,
            database="dvdrental",
            size=734003,
            sha256=SHA,
            key=DATABASE.artifact_key,
            level="restore",
        ),
        SetMember(
            series="postgres_default/%C3%84rger%20%22x%22",
            id="20261122T020105Z-0d0e0f",
            database='Ärger "x"',
            size=0,
            sha256=SHA,
            key="postgres_default/%C3%84rger%20%22x%22/20261122T020105Z-0d0e0f/00c0ffee/x.dump",
            level=None,
        ),
    ),
    missing=(Absent("billing", "no backup of this run"),),
    left_out=(Absent("template0", "accepts no connections"), Absent("template1", "a template")),
    dropped=("old",),
)

REPOSITORY = RepositoryFile(uuid=UUID, created_at=AT)
DOCUMENTS: dict[str, Document] = {
    "manifest-database": DATABASE,
    "manifest-encrypted": ENCRYPTED,
    "manifest-cluster": CLUSTER,
    "manifest-roles": ROLES,
    "verification": VERIFICATION,
    "set": SET,
    "repository": REPOSITORY,
}


def golden(name: str) -> Path:
    """The newest version that is written."""
    return GOLDEN / f"{name}-{DOCUMENTS[name].format_version}.json"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_written_is_the_golden_file(name: str) -> None:
    """The form that other releases, and other people's tools, read. A change here is a change of the format."""
    assert DOCUMENTS[name].to_json().decode() == golden(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_golden_file_is_read(name: str) -> None:
    expected = DOCUMENTS[name]
    assert type(expected).from_json(golden(name).read_bytes()) == expected


def test_a_verification_of_version_1_0_names_no_artifact_and_is_read() -> None:
    expected = replace(VERIFICATION, format_version="1.0", artifact_sha256=None)
    assert Verification.from_json((GOLDEN / "verification-1.0.json").read_bytes()) == expected
    later = expected.to_json().replace(b'"format_version": "1.0"', b'"format_version": "1.1"')
    with pytest.raises(ManifestError, match=r"version 1\.1 requires artifact_sha256, which is missing"):
        Verification.from_json(later)


@pytest.mark.parametrize("name", ["manifest-database", "manifest-cluster"])
def test_a_manifest_of_version_1_0_has_its_artifact_beside_it(name: str) -> None:
    manifest, newer = Manifest.from_json((GOLDEN / f"{name}-1.0.json").read_bytes()), DOCUMENTS[name]
    assert isinstance(newer, Manifest)
    assert manifest == replace(
        newer,
        format_version="1.0",
        artifact=replace(newer.artifact, attempt=None),
        source=replace(
            newer.source, extensions=None, service=None, replay=None, system_identifier=None, roles=None, time_zone=None
        ),
        labels=(),
    )
    file = manifest.artifact.files[0]
    assert newer.key(file).replace(f"{newer.artifact.attempt}/", "") == manifest.key(file)
    copy = manifest.moved(str(uuid4()), "0123abcd")
    assert (copy.format_version, copy.artifact.attempt) == ("1.2", "0123abcd")
    assert replace(newer, format_version="1.7").moved(UUID, "0123abcd").format_version == "1.7"


@pytest.mark.parametrize("name", ["manifest-database", "manifest-cluster"])
def test_a_manifest_of_version_1_1_has_no_labels(name: str) -> None:
    newer = DOCUMENTS[name]
    assert isinstance(newer, Manifest)
    manifest = Manifest.from_json((GOLDEN / f"{name}-1.1.json").read_bytes())
    source = replace(newer.source, service=None, replay=None, system_identifier=None, roles=None, time_zone=None)
    assert manifest == replace(newer, format_version="1.1", labels=(), source=source)
    assert manifest.moved(UUID, "0123abcd").format_version == "1.2"


@pytest.mark.parametrize("name", ["manifest-database", "manifest-cluster", "manifest-roles"])
def test_a_manifest_of_version_1_2_names_no_service_and_no_standby(name: str) -> None:
    newer = DOCUMENTS[name]
    assert isinstance(newer, Manifest)
    manifest = Manifest.from_json((GOLDEN / f"{name}-1.2.json").read_bytes())
    source = replace(newer.source, service=None, replay=None, system_identifier=None, roles=None, time_zone=None)
    assert manifest == replace(newer, format_version="1.2", source=source)


@pytest.mark.parametrize("name", ["manifest-database", "manifest-encrypted", "manifest-cluster", "manifest-roles"])
def test_a_manifest_of_version_1_4_has_no_system_identifier(name: str) -> None:
    newer = DOCUMENTS[name]
    assert isinstance(newer, Manifest)
    manifest = Manifest.from_json((GOLDEN / f"{name}-1.4.json").read_bytes())
    source = replace(newer.source, system_identifier=None, roles=None, time_zone=None)
    assert manifest == replace(newer, format_version="1.4", source=source)
    assert manifest.moved(UUID, "0123abcd").format_version == "1.4"


@pytest.mark.parametrize("zone", ["", "a" * 101, "UTC\n", "UTC -c x=y", "'", "\\", "Zürich", 1])
def test_an_impossible_time_zone_is_refused(zone: object) -> None:
    with pytest.raises(ManifestError, match="violates its schema at source/time_zone"):
        Manifest.from_json(changed(source__time_zone=zone))


def test_a_manifest_of_version_1_5_need_not_name_a_time_zone() -> None:
    content = json.loads(DATABASE.to_json())
    del content["source"]["time_zone"]
    manifest = Manifest.from_json(json.dumps(content).encode())
    assert manifest == replace(DATABASE, source=replace(DATABASE.source, time_zone=None))


@pytest.mark.parametrize("identifier", ["", "7" * 21, "7571962531458392113\n", "\x1b[2J", "٣", 7571962531458392113])
def test_an_impossible_system_identifier_is_refused(identifier: object) -> None:
    with pytest.raises(ManifestError, match="violates its schema at source/system_identifier"):
        Manifest.from_json(changed(source__system_identifier=identifier))


ROLES_OF_SOURCE = {"superusers": ["postgres"], "bypass_rls": [], "memberships": [{"role": "readers", "member": "app"}]}


def test_a_manifest_of_version_1_5_need_not_describe_roles() -> None:
    content = json.loads(DATABASE.to_json())
    del content["source"]["roles"]
    manifest = Manifest.from_json(json.dumps(content).encode())
    assert manifest == replace(DATABASE, source=replace(DATABASE.source, roles=None))
    assert manifest.format_version == "1.5"


@pytest.mark.parametrize(
    "roles",
    [
        {},
        ["postgres"],
        {**ROLES_OF_SOURCE, "superusers": None},
        {**ROLES_OF_SOURCE, "superusers": [1]},
        {**ROLES_OF_SOURCE, "superusers": [""]},
        {**ROLES_OF_SOURCE, "bypass_rls": ["a" * 64]},
        {**ROLES_OF_SOURCE, "bypass_rls": ["a"] * 10_001},
        {**ROLES_OF_SOURCE, "memberships": [{"role": "readers"}]},
        {**ROLES_OF_SOURCE, "memberships": [["readers", "app"]]},
    ],
)
def test_impossible_roles_are_refused(roles: object) -> None:
    with pytest.raises(ManifestError, match="violates its schema at source/roles"):
        Manifest.from_json(changed(source__roles=roles))


@pytest.mark.parametrize("name", ["public", "none", "a\0b", "\ud800", "é" * 32])
@pytest.mark.parametrize("field", ["superusers", "bypass_rls", "memberships"])
def test_a_name_that_no_role_has_is_refused(field: str, name: str) -> None:
    named = [{"role": "readers", "member": name}] if field == "memberships" else [name]
    with pytest.raises(ManifestError, match="cannot be the name of a role"):
        Manifest.from_json(changed(source__roles={**ROLES_OF_SOURCE, field: named}))


def test_whose_privileges_roles_inherit() -> None:
    """A forged manifest may have a cycle."""
    pairs = ("b", "a"), ("c", "b"), ("a", "c"), ("x", "y")
    roles = SourceRoles(memberships=tuple(RecordedMembership(role, member) for role, member in pairs))
    assert roles.with_inherited(["a", "other"]) == {"a", "b", "c", "other"}


@pytest.mark.parametrize("replay", [{}, {"lag_bytes": -1, "lag_seconds": 0}, {"lag_bytes": 0, "lag_seconds": "1"}])
def test_an_impossible_replay_lag_is_refused(replay: dict[str, object]) -> None:
    with pytest.raises(ManifestError, match="violates its schema at source"):
        Manifest.from_json(changed(source__replay=replay))


@pytest.mark.parametrize(
    "manifest",
    [
        replace(ROLES, options={"globals_only": True}),
        replace(CLUSTER, options={"roles_only": True}),
        replace(DATABASE, series=replace(DATABASE.series, scope="roles")),
    ],
    ids=["other options", "of a cluster", "of a database"],
)
def test_a_scope_that_is_not_of_its_dump_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"contradicts itself: the series .* is not of this dump"):
        Manifest.from_json(manifest.to_json())


@pytest.mark.parametrize("names", [("other.dump", "x.dump.age"), ("x.dump", "x.dump"), ("x.dump.age", "x.dump")])
def test_a_decrypted_file_has_the_name_without_age(names: tuple[str, str]) -> None:
    plain, stored = names
    files = (FileDigest(stored, 734403, SHA),)
    encryption = Encryption("age", (RECIPIENT,), (FileDigest(plain, 734003, SHA),))
    artifact = replace(ENCRYPTED.artifact, name=stored, files=files, encryption=encryption)
    with pytest.raises(ManifestError, match=r"differ in more than \.age"):
        Manifest.from_json(replace(ENCRYPTED, artifact=artifact).to_json())


def test_the_artifact_without_its_encryption() -> None:
    assert ENCRYPTED.artifact.plain == DATABASE.artifact
    assert DATABASE.artifact.plain is DATABASE.artifact


@pytest.mark.parametrize(
    "labels",
    [["a b"], ["\x1b[2J"], ["-a"], [""], ["x" * 64], ["a", "a"], [f"n{number}" for number in range(21)]],
    ids=["space", "escape", "minus", "empty", "long", "twice", "many"],
)
def test_a_label_that_nobody_could_have_given_is_refused(labels: list[str]) -> None:
    with pytest.raises(ManifestError, match="violates its schema at labels"):
        Manifest.from_json(replace(DATABASE, labels=tuple(labels)).to_json())
    with pytest.raises(ConfigurationError, match=r"label") if labels != ["a", "a"] else nullcontext():
        assert check_labels(labels) == ("a",)


def test_a_newer_minor_version_is_read_and_kept() -> None:
    """Written by a later release: more fields, at the top and inside, and a value that this one does not know."""
    data = (GOLDEN / "manifest-database-1.7.json").read_bytes()
    manifest = Manifest.from_json(data)
    assert manifest.artifact == replace(DATABASE.artifact, attempt=None)
    assert manifest.format_version == "1.7"
    assert manifest.unknown == {"encryption": {"method": "age", "recipients": ["age1qx"]}}
    again = json.loads(manifest.to_json())
    assert again["encryption"] == {"method": "age", "recipients": ["age1qx"]}
    assert again["format_version"] == "1.7"
    assert "unknown" not in again


def changed(**changes: Any) -> bytes:
    """The database's manifest with other values, at paths like ``artifact__size``."""
    content: Any = json.loads(DATABASE.to_json())
    for path, value in changes.items():
        at = content
        *steps, last = path.split("__")
        for step in steps:
            at = at[int(step) if step.isdigit() else step]
        at[last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize("version", ["2.0", "10.3", "0.9"])
def test_another_major_version_is_refused(version: str) -> None:
    with pytest.raises(ManifestError, match=rf"version {version}, this release reads 1\.x") as caught:
        Manifest.from_json(changed(format_version=version))
    assert "Upgrade" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"1.0"',
        b"{}",
        b'{"format_version": 1}',
        b'{"format_version": "1"}',
        b'{"format_version": "1.0"}',
        b"\xff\xfe{}",
        b"PGDMP\x01\x10",
        b"[" * 100_000,
        DATABASE.to_json()[:-3],
        DATABASE.to_json() * 2,
        changed(duration_seconds=float("nan")),
        changed(duration_seconds=4.5).replace(b"4.5", b"1e999"),
        changed(options={"jobs": 4.5}).replace(b"4.5", b"-1e999"),
        b'{"format_version": "1.0", "size": ' + b"9" * 5000 + b"}",
        b" " * (MAX_BYTES + 1),
    ],
    ids=range(18),
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(data)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_millions_of_values_in_a_field_of_a_newer_version_are_not_parsed() -> None:
    data = DATABASE.to_json().rstrip()[:-1] + b', "later": [' + b"[]," * (MOST_VALUES // 2) + b"[]]}"
    assert len(data) < MAX_BYTES
    with pytest.raises(ManifestError, match=r"values, more than 2,000,000"):
        Manifest.from_json(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../etc"},
        {"id": "20261122T020000Z-3f9ac1/x"},
        {"kind": "table"},
        {"repository": "mine"},
        {"started_at": "yesterday"},
        {"started_at": "2026-02-31T00:00:00Z"},
        {"started_at": "2026-11-22T02:00:00+02:00"},
        {"duration_seconds": -1},
        {"series__server": ""},
        {"artifact__name": ".."},
        {"artifact__name": "a/b"},
        {"artifact__name": "a\nb"},
        {"artifact__name": ""},
        {"artifact__size": -1},
        {"artifact__size": "1"},
        {"artifact__size": True},
        {"artifact__size": 1.5},
        {"artifact__sha256": SHA.upper()},
        {"artifact__files": []},
        {"artifact__files__0__path": "/etc/passwd"},
        {"artifact__files__0__path": "../x"},
        {"artifact__files__0__path": "a/../../x"},
        {"artifact__files__0__path": "a//b"},
        {"artifact__files__0__path": "a/."},
        {"artifact__files__0__path": "a/b"},
        {"artifact__files__0__path": "a\x7fb"},
        {"artifact__format": "zip"},
        {"artifact": None},
        {"restore_command": ["rm"]},
        {"client__version": "abc"},
        {"client__version": ""},
        {"client__version": "18.4\n"},
        {"client__version": "١٨.4"},
        {"client__version": "1" * 400},
        {"source__server_version_num": 10**12},
        {"source__size_bytes": 2**64},
        {"artifact__size": 1e300},
        {"artifact__compression__method": "$(touch /tmp/x)"},
        {"artifact__compression__level": 2**40},
        {"duration_seconds": 1e300},
        {"options": {"jobs": 10**400}},
        {"options": {"a": json.loads("[" * 40 + "]" * 40)}},
        {"id": "20261122T020000Z-3f9ac1\n"},
        {"id": "20261123T020000Z-3f9ac1"},
        {"artifact__name": "dvdrental_2026-11-22_0200.dump\n"},
        {"artifact__name": "dvdrental\x9b2J.dump"},
        {"artifact__name": "dvdrental\u202epmud.exe"},
        {"artifact__name": "another.dump"},
        {"artifact__size": 734004},
        {"artifact__sha256": "0" * 64},
        {"artifact__files__0__size": 1},
        {"artifact__files__0__path": "another.dump"},
        {"artifact__files__0__sha256": "0" * 64},
        {"artifact__format": "directory"},
        {"artifact__files": [json.loads(DATABASE.to_json())["artifact"]["files"][0]] * 2},
        {"kind": "cluster"},
        {"series__database": None},
        {"series__server": "\ud800"},
        {"series__database": "x" * 300},
        {"source_rows": [{"schema": "s"}]},
        {"left_out": "x"},
    ],
    ids=lambda changes: f"{next(iter(changes))}={next(iter(changes.values()))!r}"[:40],
)
def test_forged_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(changed(**changes))


@pytest.mark.parametrize("version", ["0", "18.4", "9.6.24", "19", "19.0"])
def test_every_version_that_is_written_is_read(version: str) -> None:
    assert Manifest.from_json(changed(client__version=version)).client.version == version


def test_each_required_field_is_required() -> None:
    content = json.loads(DATABASE.to_json())
    optional = {"source_rows", "left_out", "labels"}
    for name in content.keys() - optional:
        with pytest.raises(ManifestError):
            Manifest.from_json(json.dumps({k: v for k, v in content.items() if k != name}).encode())
    shortened = {k: v for k, v in content.items() if k not in optional}
    assert Manifest.from_json(json.dumps(shortened).encode()).source_rows is None


def test_a_verification_may_be_as_short_as_its_schema_allows() -> None:
    content = json.loads(VERIFICATION.to_json())
    for name in ("tables", "differences", "restore_seconds", "client", "origin"):
        del content[name]
    expected = replace(VERIFICATION, tables=(), differences=(), restore_seconds=None, client=None, origin={})
    assert Verification.from_json(json.dumps(content).encode()) == expected


@pytest.mark.parametrize("document", [VERIFICATION, REPOSITORY], ids=["verification", "repository"])
def test_what_a_later_release_wrote_is_kept_in_every_document(document: Verification | RepositoryFile) -> None:
    later = {**json.loads(document.to_json()), "format_version": "1.9", "written_by": "a later release"}
    found = type(document).from_json(json.dumps(later).encode())
    assert (found.format_version, found.unknown) == ("1.9", {"written_by": "a later release"})
    assert json.loads(found.to_json()) == later


def test_only_members_of_a_directory_have_keys_below_the_artifact() -> None:
    assert [CLUSTER.key(file) for file in MEMBERS] == [
        f"{CLUSTER.artifact_key}/{name}" for name in ("3456.dat.zst", "blob_1.dat", "toc.dat")
    ]
    assert [DATABASE.key(file) for file in DATABASE.artifact.files] == [DATABASE.artifact_key]


def test_a_moved_manifest_names_its_new_repository() -> None:
    other = str(uuid4())
    assert DATABASE.repository != other
    assert DATABASE.moved(other, "0123abcd") == replace(
        DATABASE, repository=other, artifact=replace(DATABASE.artifact, attempt="0123abcd")
    )


def test_a_number_that_json_does_not_have_is_named() -> None:
    with pytest.raises(ManifestError, match="a manifest that is not JSON: NaN is not JSON"):
        Manifest.from_json(changed(duration_seconds=float("nan")))


def test_names_that_are_not_unicode_survive() -> None:
    forged = changed(source__host="\udc80x")
    manifest = Manifest.from_json(forged)
    assert manifest.source.host == "\udc80x"
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_times_are_utc_whatever_zone_they_came_in() -> None:
    east = AT.astimezone(timezone(timedelta(hours=9)))
    data = replace(DATABASE, started_at=east).to_json()
    assert json.loads(data)["started_at"] == "2026-11-22T02:00:00Z"
    assert Manifest.from_json(data).started_at == AT


def test_the_digest_of_a_directory_is_independent_of_order_and_can_be_recomputed_by_hand() -> None:
    by_hand = hashlib.sha256(
        f"3456.dat.zst\0{20}\0{SHA}\nblob_1.dat\0{0}\0{SHA}\ntoc.dat\0{11}\0{SHA}\n".encode()
    ).hexdigest()
    assert directory_sha256(MEMBERS) == directory_sha256(reversed(MEMBERS)) == by_hand
    assert directory_sha256([*MEMBERS, FileDigest("x", 0, SHA)]) != by_hand
