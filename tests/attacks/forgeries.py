"""What somebody can put into a repository who may only put: backups that file names make more of than they are.

Each takes the repository, the real backup and a moment, and adds one folder that seems to have started then.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from honest import verification_of

from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import VerificationName, backup_folder, backup_id
from airflow_pgbackup.repository.manifest import FileDigest, Manifest

Forgery = Callable[[Repository, Evidence, datetime], str]
PASS = "restore"
"""The level that all of them claim."""


def manifest_like(real: Evidence, at: datetime) -> Manifest:
    """The real one's, of another start: it keeps its schema and lies in its place."""
    return replace(real.require_manifest(), id=backup_id(at, seed="forged"), started_at=at)


def put(
    repository: Repository, manifest: Manifest, *, artifact: bytes | None, text: bytes | None, claims: dict[str, bytes]
) -> str:
    """A folder: artifact (None: something else), manifest (None: that one), verifications by their name."""
    folder = backup_folder(manifest.series, manifest.id)
    key = manifest.artifact_key if artifact is not None else f"{folder}/something.else"
    repository.write_bytes(key, artifact or b"x")
    for file, data in claims.items():
        repository.write_bytes(f"{folder}/{file}", data)
    repository.write_bytes(f"{folder}/manifest.json", manifest.to_json() if text is None else text)
    return manifest.id


def claim(at: datetime, level: str = PASS, result: str = "pass") -> str:
    return VerificationName(at + timedelta(seconds=1), level, result).file


def bytes_of(repository: Repository, real: Evidence) -> bytes:
    manifest = real.require_manifest()
    return repository.read_bytes(manifest.key(manifest.artifact.files[0]))


def says(real: Evidence, at: datetime, level: str = PASS, result: str = "pass", **changes: object) -> bytes:
    """A verification of the forged backup, with something about it wrong."""
    made = verification_of(manifest_like(real, at), level, result, at + timedelta(seconds=1))
    return replace(made, **changes).to_json()  # type: ignore[arg-type]


def two_bytes(repository: Repository, real: Evidence, at: datetime) -> str:
    return put(repository, manifest_like(real, at), artifact=b"x", text=b"{}", claims={claim(at): b""})


def wrong_version(repository: Repository, real: Evidence, at: datetime) -> str:
    content = json.loads(manifest_like(real, at).to_json())
    content["client"]["version"] = "abc"
    return put(
        repository,
        manifest_like(real, at),
        artifact=bytes_of(repository, real),
        text=json.dumps(content).encode(),
        claims={claim(at): says(real, at)},
    )


def absurd_number(repository: Repository, real: Evidence, at: datetime) -> str:
    content = {**json.loads(manifest_like(real, at).to_json()), "duration_seconds": 12345.5}
    text = json.dumps(content).replace("12345.5", "1e999").encode()
    return put(repository, manifest_like(real, at), artifact=b"x", text=text, claims={claim(at): says(real, at)})


def copied_folder(repository: Repository, real: Evidence, at: datetime) -> str:
    return put(
        repository,
        manifest_like(real, at),
        artifact=bytes_of(repository, real),
        text=real.require_manifest().to_json(),
        claims={claim(at): real.verifications[0].to_json()},
    )


def no_artifact(repository: Repository, real: Evidence, at: datetime) -> str:
    return put(repository, manifest_like(real, at), artifact=None, text=None, claims={claim(at): says(real, at)})


def another_size(repository: Repository, real: Evidence, at: datetime) -> str:
    return put(repository, manifest_like(real, at), artifact=b"x", text=None, claims={claim(at): says(real, at)})


def manifest_as_artifact(repository: Repository, real: Evidence, at: datetime) -> str:
    """Of the size that it says, since it is that file."""
    like, size = manifest_like(real, at), 1000
    for _ in range(5):
        artifact = replace(
            like.artifact,
            attempt=None,
            name="manifest.json",
            size=size,
            files=(FileDigest("manifest.json", size, "0" * 64),),
        )
        text = replace(like, artifact=replace(artifact, sha256="0" * 64)).to_json()
        size = len(text)
    return put(repository, like, artifact=None, text=text, claims={claim(at): says(real, at, artifact_sha256="0" * 64)})


def _whole(repository: Repository, real: Evidence, at: datetime, claims: dict[str, bytes]) -> str:
    """All of it real but for what is said of it."""
    return put(repository, manifest_like(real, at), artifact=bytes_of(repository, real), text=None, claims=claims)


def empty_verification(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): b""})


def copied_verification(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): real.verifications[0].to_json()})


def of_another_artifact(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): says(real, at, artifact_sha256="0" * 64)})


def of_no_artifact(repository: Repository, real: Evidence, at: datetime) -> str:
    """As the first release wrote them, and said to be of this one."""
    return _whole(repository, real, at, {claim(at): says(real, at, artifact_sha256=None)})


def name_says_pass(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): says(real, at, result="fail")})


def name_says_restore(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): says(real, at, level="integrity")})


def of_another_time(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): says(real, at, finished_at=at + timedelta(seconds=2))})


def without_checks(repository: Repository, real: Evidence, at: datetime) -> str:
    return _whole(repository, real, at, {claim(at): says(real, at, checks=())})


def before_the_backup(repository: Repository, real: Evidence, at: datetime) -> str:
    before = at - timedelta(days=1)
    return _whole(repository, real, at, {claim(before): says(real, at, finished_at=before + timedelta(seconds=1))})


def from_the_future(repository: Repository, real: Evidence, at: datetime) -> str:
    then = at + timedelta(hours=12)
    return _whole(repository, real, at, {claim(then): says(real, at, finished_at=then + timedelta(seconds=1))})


UNREADABLE: tuple[Forgery, ...] = (two_bytes, wrong_version, absurd_number, copied_folder)
"""Nobody knows what they are."""
NOT_WHOLE: tuple[Forgery, ...] = (*UNREADABLE, no_artifact, another_size, manifest_as_artifact)
"""No backups at all."""
NOT_VERIFIED: tuple[Forgery, ...] = (
    empty_verification, copied_verification, of_another_artifact, of_no_artifact, name_says_pass, name_says_restore,
    of_another_time, without_checks, before_the_backup, from_the_future,
)  # fmt: skip
"""Backups that nobody has verified."""
