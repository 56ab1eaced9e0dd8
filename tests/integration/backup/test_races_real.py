"""Two at once on real stores, and in real processes; see :mod:`test_races`."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from honest import write_backup
from interleaving import in_order, run, step
from racing import APP, DIRECTORY, NOW, UPLOADED, Place, do_prune, do_upload, in_every_order, looked_at

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.entry import Entry
from airflow_pgbackup.repository.evidence import is_complete, read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.local import repository as local
from airflow_pgbackup.repository.local import root as local_root
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.bucket import Bucket
from airflow_pgbackup.repository.s3.options import S3Options

# -- real stores: a step is a call of the file system, or a request ----------------------------------------------------


verbs = pytest.mark.parametrize("verb", [do_upload, do_prune], ids=["retry", "prune"])


class Stepping(LocalRepository):
    """With a step before each look, and each change."""

    def stat(self, key: str) -> Entry | None:
        step(f"stat {key}")
        return super().stat(key)

    def _list(self, folder: str) -> Iterator[Entry]:
        step(f"list {folder}")
        return super()._list(folder)

    def _make_folders(self, folder: Path) -> None:
        step(f"mkdir {folder.name}")
        super()._make_folders(folder)

    def _remove_empty(self, folder: Path) -> None:
        step(f"rmdir {folder.name}")
        super()._remove_empty(folder)

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            step(f"unlink {key}")
            super()._delete([key])


def stepping(call: Callable[..., None]) -> Callable[..., None]:
    def do(*paths: Path, **directory: int) -> None:
        step(f"{call.__name__} {Path(paths[-1]).name}")
        call(*paths, **directory)

    return do


@pytest.mark.usefixtures("utime_counts")
@verbs
def test_on_a_file_system(verb: Callable[[Repository], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_root, "name_exclusively", stepping(local_root.name_exclusively))
    for module in (local, local_root):
        monkeypatch.setattr(module, "flush", stepping(module.flush))
    monkeypatch.setattr(local_root, "make_directories_below", stepping(local_root.make_directories_below))
    number = itertools.count()

    def make() -> Place:
        root = tmp_path / str(next(number))
        LocalRepository(root).init()
        left = {"members": DIRECTORY, "committed": False, "attempt": "0ddba115"}
        write_backup(LocalRepository(root), APP, UPLOADED.started_at, **left)  # type: ignore[arg-type]
        for path in root.rglob("*"):
            os.utime(path, (0, 0))
        return Place(lambda: Stepping(root), {"upload": do_upload, "other": verb})

    assert in_every_order(make, 1) > 25


@pytest.mark.every_value
@verbs
@pytest.mark.parametrize("number", range(3))
def test_in_a_bucket(
    number: int, verb: Callable[[Repository], Any], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Bucket.call

    def request(bucket: Bucket, operation: str, /, **params: Any) -> dict[str, Any]:
        step(f"{operation} {params.get('Key') or params.get('Prefix') or ''}")
        return call(bucket, operation, **params)

    monkeypatch.setattr(Bucket, "call", request)
    name = s3.bucket()

    def opened() -> Repository:
        return open_repository(f"s3://{name}/pg", s3=S3Options(client_factory=s3.client))

    opened().init()
    place = Place(opened, {"upload": do_upload, "other": verb})
    random_ = random.Random(number)
    done = run(place, in_order([random_.randint(0, 1) for _ in range(80)]))
    looked_at(place, done)
    assert all(actor.succeeded for actor in done.actors.values()), done


# -- two processes, and nobody to order their steps --------------------------------------------------------------------

WORKER = """
import json, sys
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.repository.open import open_repository

given = json.loads(sys.argv[1])
here = open_repository(given["here"])
sys.stdout.write("ready\\n"), sys.stdout.flush(), sys.stdin.readline()
if given["verb"] == "upload":
    made = upload(reference=given["reference"], source=open_repository(given["source"]), destination=here)
else:
    made = dump_database(
        connection=ConnectionParams(keywords=given["keywords"], password=given["password"]), server="prod",
        repository=here, options=DumpOptions(), context=RunContext(seed="the same task"),
    )
print(json.dumps(made))
"""


def race(given: dict[str, Any]) -> list[dict[str, Any]]:
    """What two processes return that begin together."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.communicate(timeout=240)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]) -> ConnectionParams:
    return fresh_database(server18, None, "create table t as select generate_series(1, 10) n")


def test_a_zombie_and_its_retry(database: ConnectionParams, tmp_path: Path) -> None:
    connection = {"keywords": dict(database.keywords), "password": database.password}
    for number in range(2):
        here = LocalRepository(tmp_path / f"pg{number}")
        here.init()
        for made in race({"verb": "dump", "here": here.uri, **connection}):
            assert is_complete(read_evidence(here, Series("prod", database.dbname), made["id"]))
        assert all(is_complete(read_evidence(here, one.series, one.id)) for one in read_catalogue(here).backups)


def test_two_uploads_of_one_backup(tmp_path: Path) -> None:
    source = LocalRepository(tmp_path / "source")
    source.init()
    made = write_backup(source, APP, NOW, members={"app.dump": b"PGDMP" * (1 << 20)})
    reference = {"series": APP.path, "id": made.id, "repository_uuid": source.uuid}
    for number in range(2):
        here = LocalRepository(tmp_path / f"pg{number}")
        here.init()
        one, other = race({"verb": "upload", "here": here.uri, "source": source.uri, "reference": reference})
        assert one == other
        assert is_complete(read_evidence(here, APP, made.id))
        (entry,) = [entry for entry in here.list() if entry.key.endswith("app.dump")]
        assert entry.key == one["key"], "the loser left nothing"
