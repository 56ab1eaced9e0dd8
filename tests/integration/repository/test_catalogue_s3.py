"""The catalogue of a bucket: the requests it costs, and listings of awkward keys."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.errors import RepositoryError, RepositoryNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue, read_manifests
from airflow_pgbackup.repository.layout import Series, VerificationName, backup_folder, backup_id
from airflow_pgbackup.repository.manifest import MAX_BYTES
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


class Counted:
    """A repository in a bucket, and the requests made of it."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.bucket = server.bucket()
        self.requests: Counter[str] = Counter()
        self.client = server.client()
        self.client.meta.events.register("before-call.s3", lambda model, **_: self.requests.update([model.name]))
        self.open().init()

    def open(self) -> Repository:
        return open_repository(f"s3://{self.bucket}/pg", s3=S3Options(client_factory=lambda: self.client))

    def put(self, *keys: str, body: bytes = b"x") -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda k: self.client.put_object(Bucket=self.bucket, Key=f"pg/{k}", Body=body), keys))
        self.requests.clear()


@pytest.fixture
def place(s3: S3Server) -> Counted:
    return Counted(s3)


def keys_of(series: Series, *nights: int) -> list[str]:
    keys = []
    for night in nights:
        at = NOW - timedelta(days=night)
        folder = backup_folder(series, backup_id(at, seed=str(night)))
        keys += [
            f"{folder}/{name}" for name in ("x.dump", "manifest.json", VerificationName(at, "archive", "pass").file)
        ]
    return keys


def test_one_list_per_thousand_keys_and_no_get(place: Counted) -> None:
    # With repository.json 2,002 keys in 23 series: three pages.
    keys = [key for number in range(23) for key in keys_of(Series("prod", f"db{number}"), *range(29))]
    place.put(*keys)
    catalogue = read_catalogue(place.open())
    assert len(catalogue.backups) == 23 * 29
    assert {(b.state, b.level, b.size) for b in catalogue.backups} == {("verified", "archive", 1)}
    assert place.requests == {"ListObjectsV2": 3, "GetObject": 1}, "the one GET is of repository.json"


def test_some_series_are_some_listings(place: Counted) -> None:
    app, other = Series("prod", "app"), Series("prod", "other")
    place.put(*keys_of(app, 0, 1), *keys_of(Series("prod", "app_staging"), 0), *keys_of(other, 0))
    assert set(read_catalogue(place.open(), series=[app, other]).by_series()) == {app, other}
    assert place.requests == {"ListObjectsV2": 2, "GetObject": 1}


def test_awkward_names_come_back_as_they_went(place: Counted) -> None:
    names = ["..", "a/b", "@cluster", "ünï cødé", "a+b c%41&d=e", "<x>&amp;", "line\nend", "'\"\\", "日本語", "~"]
    series = [Series(name, name) for name in names] + [Series("prod", None)]
    place.put(*(key for one in series for key in keys_of(one, 0)))
    catalogue = read_catalogue(place.open())
    assert set(catalogue.by_series()) == set(series)
    assert catalogue.foreign == ()


def test_foreign_keys_are_passed_over(place: Counted) -> None:
    foreign = ["a b+c%41.txt", "prod/<x>&amp;.txt", "prod/app/ü/manifest.json"]
    place.put(*foreign, *keys_of(Series("prod", "app"), 0))
    place.client.put_object(
        Bucket=place.bucket, Key="pg_other/prod/app/20261122T020000Z-3f9ac1/manifest.json", Body=b"x"
    )
    catalogue = read_catalogue(place.open())
    assert len(catalogue.backups) == 1
    assert sorted(catalogue.foreign) == sorted(foreign)


def test_listings_are_what_boto3_says_they_are(place: Counted) -> None:
    keys = ["plain", "a b+c%41&d=e", "<x>&amp;", "ü", "empty"]
    place.put(*keys)
    place.client.put_object(Bucket=place.bucket, Key="pg/empty", Body=b"")
    told = {
        item["Key"].removeprefix("pg/"): (item["Size"], item["ETag"], item["LastModified"])
        for item in place.server.client().list_objects_v2(Bucket=place.bucket)["Contents"]
    }
    found = {entry.key: (entry.size, entry.version, entry.modified) for entry in place.open().list()}
    assert found == told
    assert set(found) == {*keys, "repository.json"}


def test_an_error_of_a_listing_is_told_as_ever(place: Counted) -> None:
    nowhere = open_repository("s3://no-such-bucket-anywhere/pg", s3=S3Options(client_factory=place.server.client))
    with pytest.raises(RepositoryNotFound, match="does not exist at"):
        list(nowhere.list())
    other = open_repository(f"s3://{place.server.bucket()}", s3=S3Options(client_factory=place.server.client))
    with pytest.raises(RepositoryNotFound, match="no repository at"):
        read_catalogue(other)


def test_a_huge_manifest_is_never_read(place: Counted) -> None:
    artifact, manifest, verification = keys_of(Series("prod", "app"), 0)
    place.put(artifact, verification)
    place.put(manifest, body=bytes(MAX_BYTES + 1))
    repository = place.open()
    backups = read_catalogue(repository).backups
    assert [backup.state for backup in backups] == ["incomplete"]
    (error,) = read_manifests(repository, backups)
    assert isinstance(error, RepositoryError)
    assert "is larger than" in error.message
