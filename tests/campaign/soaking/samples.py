"""Samples: memory, descriptors, processes, temporary space, rows and objects, of what the soak started only."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from celery_airflow import CeleryAirflow

from tests.campaign.soaking.companion import Companion

SECONDS = 10.0
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")
WORKERS = ("worker-1", "worker-2")
TABLES = (
    *("dag_run", "task_instance", "task_instance_history", "xcom", "log", "rendered_task_instance_fields"),
    *("asset_event", "trigger", "dag_version", "serialized_dag", "job"),
)


@dataclass
class Series:
    """Samples over time. ``values[name]`` has one value for each of ``seconds``."""

    seconds: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, seconds: float, sample: dict[str, float]) -> None:
        self.seconds.append(seconds)
        for name in {*self.values, *sample}:
            column = self.values.setdefault(name, [0.0] * (len(self.seconds) - 1))
            column.append(sample.get(name, 0.0))


def process_groups() -> dict[str, list[psutil.Process]]:
    """Return the descendants of this process by what they belong to: a server of Airflow, a worker, other servers.

    ``orphans`` are children that something else had started: in the PID namespace of the soak, of which this process is
    the first, they come here when their parent dies.
    """
    groups: dict[str, list[psutil.Process]] = {}
    for child in psutil.Process().children():
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        log = re.search(r'"log": "[^"]*/([^"/]+)\.log"', line)
        worker = re.search(r"\b(worker-\d)\b", line)
        if line.startswith("unshare") and worker:
            group = worker[1]
        elif log:
            group = log[1] if log[1] in AIRFLOW else "servers"
        else:
            group = "servers" if "_supervisor.py" in line or "_leader.py" in line else "orphans"
        groups.setdefault(group, []).extend([child, *descendants(child)])
    return groups


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def tree_size(directory: Path) -> tuple[int, int]:
    """Return the files and bytes below a directory, which may change meanwhile."""
    files = size = 0
    for path in _walk(directory):
        try:
            found = path.lstat()
        except OSError:
            continue
        files += 1
        size += found.st_size
    return files, size


def _walk(directory: Path) -> Iterator[Path]:
    try:
        entries = list(directory.iterdir())
    except OSError:
        return
    for path in entries:
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


class Sampler(Companion):
    """Takes a sample every ten seconds in a thread of its own.

    :ivar changed: objects of backups whose content changed, which none may.
    """

    def __init__(self, platform: CeleryAirflow, bucket: str, started: float) -> None:
        self.series = Series()
        self.changed: list[str] = []
        self.failures: list[str] = []
        self._platform, self._bucket, self._started = platform, bucket, started
        self._client = platform.s3.client()
        self._seen: dict[str, str] = {}
        super().__init__()

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self.series.add(begun - self._started, self.sample())
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self._stop.wait(max(0.0, SECONDS - (time.monotonic() - begun)))

    def sample(self) -> dict[str, float]:
        return {**self._processes(), **self._space(), **self._rows(), **self._objects()}

    def _processes(self) -> dict[str, float]:
        sample: dict[str, float] = {}
        for group, members in process_groups().items():
            memory = descriptors = count = zombies = 0
            for process in members:
                try:
                    if process.status() == psutil.STATUS_ZOMBIE:
                        zombies += 1
                        continue
                    memory += process.memory_info().rss
                    descriptors += process.num_fds()
                    count += 1
                except psutil.Error:
                    continue
            sample |= {
                f"memory {group}": memory,
                f"descriptors {group}": descriptors,
                f"processes {group}": count,
                f"zombies {group}": zombies,
            }
        return sample

    def _space(self) -> dict[str, float]:
        places = {"hub": self._platform.hub, **{each.name: each.directory for each in self._platform.machines}}
        sample: dict[str, float] = {}
        for name, directory in places.items():
            files, size = tree_size(directory / "tmp")
            sample |= {f"temporary files {name}": files, f"temporary bytes {name}": size}
        return sample

    def _rows(self) -> dict[str, float]:
        counts = ", ".join(f"(select count(*) from {table})" for table in TABLES)
        query = f"select {counts}, (select coalesce(sum(length(value::text)), 0) from xcom)"
        (row,) = self._platform.query(query)
        return dict(zip([f"rows {table}" for table in TABLES] + ["xcom bytes"], map(float, row), strict=True))

    def _objects(self) -> dict[str, float]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        entries: list[dict[str, Any]] = [entry for page in pages for entry in page.get("Contents", ())]
        now = {entry["Key"]: str(entry["ETag"]) for entry in entries}
        self.changed += [key for key, tag in now.items() if self._seen.get(key, tag) != tag and _must_stay(key)]
        self._seen = now
        backups = sum(key.endswith("/manifest.json") for key in now)
        size = sum(entry["Size"] for entry in entries)
        return {"objects": len(now), "object bytes": size, "backups": backups}


def _must_stay(key: str) -> bool:
    """Return whether nothing may overwrite this object: each but the small files that are written anew on purpose."""
    return not key.endswith(("repository.json", "pin.json"))
