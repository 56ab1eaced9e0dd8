"""Repositories with names and files that we never write: in memory, as a store lists them, and in a local directory.

An input is JSON: a list of pairs of a key and the contents that the key gets, by number.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from random import Random

from campaign.fuzzing.engine import Target, Violation
from campaign.fuzzing.mutations import some_bytes
from memory_store import MemoryRepository, Store

from airflow_pgbackup.backup.fsck.run import fsck
from airflow_pgbackup.backup.overview.collect import overview
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.errors import PgBackupError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import is_key, split_key
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.set_files import list_sets, read_listed_set

_GOLDEN = Path(__file__).parents[2] / "golden"
_NOW = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
_NAMES = (
    *("manifest.json", "repository.json", "pin.json", "set-20261122T023000.123456Z-complete.json", "", ".", ".."),
    "verification-20261122T021500.123456Z-archive-pass.json",
    "verification-20269999T999999.999999Z-restore-fail.json",
    *("20261122T020000Z-3f9ac1", "20261322T020000Z-3f9ac1", "00000000T000000Z-000000", "7d41c09e", "@sets", "@cluster"),
    *("@globals", "%40cluster", "%2E%2E", "a%2fb", "a%2Fb", "é", "\udce9", "\n", "\x1b[31m", ".pgbackup-tmp-x"),
    *("x" * 255, "x" * 300, "%", "prod", "dvdrental", " ", "a b", "-rf", "{database}", "\u202e", "\\", ".hidden"),
)  # fmt: skip


@cache
def _contents() -> list[bytes]:
    return [b"", b"{}", b"x" * 100, *(file.read_bytes() for file in sorted(_GOLDEN.glob("*.json")))]


def _seeds() -> Sequence[bytes]:
    """A repository that is sound: each golden manifest where it belongs, with its artifact and a verification."""
    pairs: list[tuple[str, int]] = []
    for number, data in enumerate(_contents()):
        content = json.loads(data) if data.startswith(b"{") else {}
        if "artifact" in content and "series" in content:
            from airflow_pgbackup.repository.manifest import Manifest

            manifest = Manifest.from_json(data)
            folder = f"{manifest.series.path}/{manifest.id}"
            pairs += [(f"{folder}/manifest.json", number), (manifest.artifact_key, 2)]
            pairs += [(f"{folder}/verification-20261122T021500.123456Z-archive-pass.json", len(_contents()) - 1)]
        elif content.get("kind") == "pgbackup set":
            pairs.append(
                (f"{content['server']}/@sets/{content['id']}/set-20261122T023000.123456Z-complete.json", number)
            )
    return [json.dumps(pairs).encode(), json.dumps(pairs[:3]).encode(), json.dumps(pairs[-3:]).encode()]


def _mutate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    try:
        pairs = json.loads(data)
    except ValueError:
        return some_bytes(random, data, others)
    for _ in range(random.randint(1, 5)):
        key, number = random.choice(pairs) if pairs else ["prod/app/20261122T020000Z-3f9ac1/manifest.json", 3]
        segments = key.split("/")
        at = random.randrange(len(segments))
        kind = random.randrange(8)
        if kind < 3:
            segments[at] = random.choice(_NAMES)
        elif kind == 3:
            segments.insert(at, random.choice(_NAMES))
        elif kind == 4:
            del segments[at]
        elif kind == 5:
            position = random.randint(0, len(segments[at]))
            segments[at] = segments[at][:position] + random.choice("0Z-%/.@\n\0aé") + segments[at][position + 1 :]
        elif kind == 6:
            number = random.randrange(len(_contents()))
        elif pairs:
            pairs.remove(random.choice(pairs))
            continue
        pairs.append(("/".join(segments), number))
    return json.dumps(pairs[-40:]).encode()


def _read(data: bytes) -> list[tuple[str, bytes]]:
    """Return keys and contents of an input; none for one that is no list of pairs."""
    try:
        pairs = json.loads(data)
        return [(str(key), _contents()[int(number) % len(_contents())]) for key, number in pairs]
    except (ValueError, TypeError, RecursionError):
        return []


def _check(repository: Repository) -> str:
    catalogue = read_catalogue(repository)
    for entry in repository.list():
        if not is_key(entry.key):
            raise Violation(f"listed, though it is not a key: {entry.key[:80]!r}")
    for backup in catalogue.backups:
        if split_key(f"{backup.folder}/manifest.json") is None:
            raise Violation(f"a backup in a folder that is not one of a backup: {backup.folder[:80]!r}")
        json.dumps(backup.as_json())
        try:
            read_evidence(repository, backup.series, backup.id, now=_NOW)
        except PgBackupError as error:
            str(error)
    for listed in list_sets(repository):
        try:
            read_listed_set(repository, listed, now=_NOW)
        except PgBackupError as error:
            str(error)
    report = fsck(repository=repository, now=_NOW)
    str(report)
    plan = prune(repository=repository, policy=Policy(keep_last=1), dry_run=True, now=_NOW, grace=timedelta(hours=1))
    json.dumps(plan)
    overview(repository=repository, now=_NOW)
    return f"accepted: {'backups' if catalogue.backups else 'none'}"


def _in_memory(data: bytes) -> str:
    store = Store()
    repository = MemoryRepository(store)
    repository.init()
    for key, content in _read(data):
        if key != "repository.json":
            store.put(key, content)
    return _check(repository)


def _locally(data: bytes) -> str:
    with _directory() as root:
        repository = open_repository(f"file://{root}/repository")
        repository.init()
        for key, content in _read(data):
            _create(root / "repository", key, content)
        return _check(repository)


@contextmanager
def _directory() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def _create(root: Path, key: str, content: bytes) -> None:
    """Create a file with this key if a file system can have it; below the directory, whatever the key says."""
    if "\0" in key or any(segment in ("", ".", "..") for segment in key.split("/")):
        return
    path = os.fsencode(root) + b"/" + key.encode("utf-8", "surrogateescape" if key.isprintable() else "surrogatepass")
    try:
        Path(os.fsdecode(os.path.dirname(path))).mkdir(parents=True, exist_ok=True)  # noqa: PTH120
        kind = len(content) % 7
        if kind == 5:
            os.symlink("/etc/passwd", path)  # noqa: PTH211
        elif kind == 6:
            os.mkfifo(path)
        else:
            with io.open(path, "xb") as file:  # noqa: UP020
                file.write(content)
    except OSError:
        return


_MODULES = (
    "airflow_pgbackup.repository.catalogue",
    "airflow_pgbackup.repository.evidence",
    "airflow_pgbackup.repository.layout",
    "airflow_pgbackup.repository.set_files",
    "airflow_pgbackup.repository.set_layout",
    "airflow_pgbackup.backup.fsck.run",
    "airflow_pgbackup.backup.fsck.inventory",
    "airflow_pgbackup.backup.fsck.folder",
)

TARGETS = [
    Target("listing", _seeds, _mutate, _in_memory, (), _MODULES),
    Target("local-listing", _seeds, _mutate, _locally, (), (*_MODULES, "airflow_pgbackup.repository.local.tree")),
]
