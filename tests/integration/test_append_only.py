"""With credentials that may put and read, everything but prune and unpin works; what they cannot remove is one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from faulty_s3 import FaultyS3
from put_only import ALWAYS, Credentials, deny_versions, no_overwriting, put_only
from test_cli import environment

from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import TEMP_PREFIX, Series

SERIES = Series("prod", "append_only")
COMPLAINT = re.compile("error:|warning|hint|denied|could not", re.IGNORECASE)


@dataclass
class Place:
    """Two repositories in a bucket, the credentials that may not delete, and the owner's; and the command line."""

    here: str
    there: str
    dumper: Credentials
    owner: Credentials
    proxy: FaultyS3
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str, who: Credentials | None = None, status: str = "done") -> tuple[str, str]:
        """Run a command; return what it writes to stdout and stderr."""
        for name, value in (who or self.dumper).environment.items():
            self.monkeypatch.setenv(name, value)
        self.capsys.readouterr()
        found = main(list(arguments))
        shown = self.capsys.readouterr()
        assert found == EXIT_STATUS[status], shown
        assert "Traceback" not in shown.err
        return shown.out, shown.err

    def quiet(self, *arguments: str) -> str:
        """Run a command that has nothing to complain about; return its stdout."""
        out, err = self.run(*arguments)
        assert not COMPLAINT.search(err), err
        return out

    def dump(self, option: str) -> str:
        """Dump without compression; return the id of the backup."""
        out, err = self.run("dump", self.here, "--server", "prod", "-o", option, "-o", "compress=none", "--json")
        assert not COMPLAINT.search(err), err
        (line,) = [line for line in err.splitlines() if TEMP_PREFIX in line]
        assert f"append-only: these credentials may write to {self.here}, but not delete; prune sweeps" in line
        return str(json.loads(out)["id"])

    @property
    def owned(self) -> Repository:
        return self.owner.open(self.here)

    def held(self) -> list[str]:
        bucket = self.here.split("/")[2]
        return [item["Key"] for item in self.owner.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyS3]:
    with no_overwriting(s3) as proxy:
        yield proxy


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    s3: S3Server,
    proxy: FaultyS3,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    client_dirs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Place:
    database = fresh_database(
        server18,
        SERIES.database,
        "create table film as select n as film_id, 'film ' || n as title from generate_series(1, 1000) n",
        # 10 MB: two parts of an upload.
        "create table large as select n, repeat(md5(n::text), 100) as text from generate_series(1, 3200) n",
    )
    for name, value in {**environment(database), "PGBACKUP_CLIENT_DIRS": ":".join(client_dirs)}.items():
        monkeypatch.setenv(name, value)
    bucket = s3.bucket()
    dumper = put_only(s3, bucket, proxy.url if request.param == "bucket policy" else None)
    owner = Credentials(s3.endpoint_url, s3.access_key, s3.secret_key)
    place = Place(f"s3://{bucket}/here", f"s3://{bucket}/there", dumper, owner, proxy, monkeypatch, capsys)
    place.run("init", place.here)
    place.run("init", place.there)
    return place


IDENTITY = pytest.mark.parametrize("place", ["identity"], indirect=True)
POLICY = pytest.mark.parametrize("place", ["bucket policy"], indirect=True)


@IDENTITY
def test_everything_but_prune_works(place: Place, tmp_path: Path) -> None:
    made = [place.dump(f"format={format}") for format in ("custom", "plain", "tar", "directory")]
    for id in made:
        place.quiet("verify", place.here, str(SERIES), id, "--level", "archive")
    for level in ("integrity", "restore"):
        place.quiet("verify", place.here, str(SERIES), made[0], "--level", level)
    place.quiet("upload", place.here, str(SERIES), made[3], "--to", place.there)
    place.quiet("pin", place.here, str(SERIES), made[0])
    place.quiet("dump-set", place.here, "--server", "sets", "--database", "append_only", "--no-globals")
    (line,) = [line for line in place.quiet("list", place.here, "--all").splitlines() if made[0] in line]
    assert "pinned" in line
    assert "restore" in line
    assert made[0] in place.quiet("show", place.here, str(SERIES), made[0])
    place.quiet("freshness", place.here)
    assert "pgbackup_" in place.quiet("metrics", place.here)
    place.quiet("fsck", place.here)
    place.quiet("get", place.here, str(SERIES), "--into", str(tmp_path))


@POLICY
def test_dump_verify_and_upload_work_where_the_bucket_requires_if_none_match(place: Place) -> None:
    """And keeps versions, which the role may not read."""
    bucket = place.here.split("/")[2]
    place.owner.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    deny_versions(place.proxy)
    for format in ("custom", "directory"):
        id = place.dump(f"format={format}")
        place.quiet("verify", place.here, str(SERIES), id, "--level", "archive")
        place.quiet("upload", place.here, str(SERIES), id, "--to", place.there)
    assert place.proxy.count("CompleteMultipartUpload") > 0
    assert place.proxy.count("CopyObject") > 0, "S3 refuses it there, so the copy was streamed"
    assert "2 backups in 1 series" in place.quiet("list", place.there)


@IDENTITY
def test_check_says_that_it_is_append_only(place: Place) -> None:
    out, err = place.run("check", place.here, "--server", "prod")
    assert f"append-only: these credentials may write to {place.here}, but not delete" in err
    assert "repository" not in out
    _, err = place.run("check", place.here, "--server", "prod", who=place.owner)
    assert f"these credentials may write and delete in {place.here}" in err
    assert "append-only" not in err


@POLICY
def test_what_a_failed_attempt_leaves_is_one_line_and_swept_by_the_owner(place: Place) -> None:
    place.proxy.fault("PutObject", "answer", status=403, code="AccessDenied", times=ALWAYS, when=_is_manifest)
    before = place.held()
    _, err = place.run("dump", place.here, "--server", "prod", status="failed")
    (line,) = [line for line in err.splitlines() if "could not remove" in line]
    (left,) = [key.removeprefix("here/") for key in place.held() if key not in before and TEMP_PREFIX not in key]
    assert left in line
    assert "without a manifest it is not a backup, and prune sweeps it" in line
    assert "0 backups in 0 series; 1 incomplete folder" in place.run("list", place.here)[0]
    later = datetime.now(timezone.utc) + timedelta(days=2)
    swept = prune(repository=place.owned, policy=None, dry_run=False, now=later)
    assert [one["key"] for one in swept["leftovers"]] == ["/".join(left.split("/")[:3])]  # type: ignore[attr-defined]
    assert f"here/{left}" not in place.held()


@POLICY
def test_the_owner_sweeps_probes_and_uploads_that_could_not_be_aborted(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.proxy.fault("UploadPart", "answer", status=403, code="AccessDenied", skip=1, times=ALWAYS)
    place.run("dump", place.here, "--server", "prod", "-o", "compress=none", status="failed")
    (line,) = [line for line in caplog.messages if "could not be aborted" in line]
    assert "nothing is visible, and prune or a lifecycle rule removes it later" in line
    found = place.owned.unfinished_writes(timedelta(0))
    assert sorted(one.upload_id is not None for one in found) == [False, True]
    place.owned.remove_unfinished(found)
    assert place.owned.unfinished_writes(timedelta(0)) == []
    assert place.held() == ["here/repository.json", "there/repository.json"]


@IDENTITY
def test_prune_and_unpin_say_what_they_may_not(place: Place) -> None:
    for _ in range(2):
        out, _ = place.run("dump", place.here, "--server", "prod", "--verify", "archive", "--json")
    id = json.loads(out)["id"]
    before = place.held()
    _, err = place.run("prune", place.here, "--keep-last", "1", "--delete", status="failed")
    assert "1 of 1 deletions failed" in err
    assert "the role needs s3:DeleteObject" in err
    place.run("pin", place.here, str(SERIES), id)
    _, err = place.run("unpin", place.here, str(SERIES), id, status="failed")
    assert "pin.json (AccessDenied" in err
    assert "the role needs s3:DeleteObject" in err
    assert place.held() == sorted([*before, f"here/{SERIES.path}/{id}/pin.json"])


def _is_manifest(call: Any) -> bool:
    return bool(call.key.endswith("/manifest.json"))
