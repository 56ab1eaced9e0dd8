"""Measure fsck of 1,000 backups in 100 series, in a local directory and on a real S3 server, in seconds and requests.

    python benchmarks/bench_fsck.py [--backups 1000] [--series 100]

The goals: one LIST per 1,000 keys, one GET for each manifest and verification, none of an artifact. Exit status 1 if
one is missed, or fsck finds a fault.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from bench_catalogue import NOW, ROUNDS, describe, keys_of

from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import VerificationName, parse_backup_id, split_key
from airflow_pgbackup.repository.manifest import (
    Artifact,
    ClientInfo,
    DatabaseSource,
    FileDigest,
    Manifest,
    RecordedCompression,
)
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.repository.verification import Check, TableResult, Verification

BODY = b"x"
TABLES = 100
"""In each verification."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backups", type=int, default=1000)
    parser.add_argument("--series", type=int, default=100)
    arguments = parser.parse_args()
    keys = keys_of(arguments.backups, arguments.series)
    with tempfile.TemporaryDirectory() as root:
        local = open_repository(f"file://{root}/pg")
        fill(local, keys)
        good = bench("local directory", lambda: open_repository(f"file://{root}/pg"), arguments.backups)
        size = sum(path.stat().st_size for path in Path(root).rglob("*.json"))
        print(f"manifests and verifications: {size / 1024**2:.1f} MiB")
    requests: Counter[str] = Counter()
    with S3Server() as server:
        bucket, client = server.bucket(), server.client()
        options = S3Options(client_factory=lambda: client)
        fill(open_repository(f"s3://{bucket}/pg", s3=options), keys)
        client.meta.events.register("before-call.s3", lambda model, **_: requests.update([model.name]))
        good &= bench("S3 server", lambda: open_repository(f"s3://{bucket}/pg", s3=options), arguments.backups)
    each = {name: count // ROUNDS for name, count in requests.items()}
    print("requests: " + ", ".join(f"{count} {name}" for name, count in each.items()))
    lists = -(-(len(keys) + 1) // 1000) + 1  # and one of temporary files
    return 0 if good and each["GetObject"] <= 2 * arguments.backups + 1 and each["ListObjectsV2"] <= lists else 1


def bench(what: str, reopen: Callable[[], Repository], backups: int) -> bool:
    seconds, sound = [], True
    for _ in range(ROUNDS):
        repository = reopen()
        started = time.perf_counter()
        report = fsck(repository=repository, now=NOW)
        seconds.append(time.perf_counter() - started)
        sound &= report.findings == () and report.backups == backups
    print(
        f"fsck of {backups} backups, {what}: {describe(seconds)}; "
        f"{1000 * statistics.median(seconds) / backups:.1f} ms each"
    )
    return sound


def fill(repository: Repository, keys: list[str]) -> None:
    repository.init()

    def put(number: int) -> None:
        artifact, manifest_key, verification = keys[3 * number : 3 * number + 3]
        manifest = manifest_of(repository, artifact)
        repository.write_bytes(artifact, BODY)
        repository.write_bytes(verification, verification_of(manifest, verification.rpartition("/")[2]).to_json())
        repository.write_bytes(manifest_key, manifest.to_json())

    started = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(len(keys) // 3)))
    print(f"{len(keys)} keys written in {time.perf_counter() - started:.0f} s")


def manifest_of(repository: Repository, artifact: str) -> Manifest:
    split = split_key(artifact)
    assert split is not None
    series, backup, name = split
    at = parse_backup_id(backup)
    assert at is not None
    sha256 = hashlib.sha256(BODY).hexdigest()
    return Manifest(
        repository=repository.uuid,
        series=series,
        id=backup,
        kind="database",
        started_at=at,
        finished_at=at + timedelta(seconds=5),
        duration_seconds=5.0,
        artifact=Artifact(
            name=name,
            format="custom",
            compression=RecordedCompression("zstd", 3, "airflow-pgbackup"),
            size=len(BODY),
            sha256=sha256,
            files=(FileDigest(name, len(BODY), sha256),),
        ),
        source=DatabaseSource(
            database=series.database,
            server_version="18.4",
            server_version_num=180004,
            size_bytes=1,
            encoding="UTF8",
            host="h",
            extensions={"plpgsql": "1.0"},
        ),
        client=ClientInfo("pg_dump", "18.4", "/bin/pg_dump"),
        options={},
        origin={},
        restore_command=f"pg_restore {name}",
    )


def verification_of(manifest: Manifest, file: str) -> Verification:
    name = VerificationName.parse(file)
    assert name is not None
    return Verification(
        backup_id=manifest.id,
        level=name.level,
        result=name.result,
        started_at=name.at,
        finished_at=name.at,
        duration_seconds=0.0,
        checks=(Check("integrity", "pass"), Check("archive", "pass")),
        tables=tuple(
            TableResult(schema="public", name=f"table_{n}", rows=n, sha256="0" * 64, result="pass")
            for n in range(TABLES)
        ),
        artifact_sha256=manifest.artifact.sha256,
    )


if __name__ == "__main__":
    sys.exit(main())
