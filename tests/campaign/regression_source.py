"""Fetch PostgreSQL's regression tests, and run them so that the database ``regression`` remains.

Nothing of PostgreSQL is part of this repository: the tests come from Debian's source package of the server's own major
version, or from a directory given by the caller.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

DATABASE = "regression"
SUITES = {15: "bookworm", 17: "trixie", 18: "forky"}
"""The Debian release with each major version."""

SETTINGS = {
    "wal_level": "logical",  # the tests of replication slots and publications
    "max_wal_senders": "4",
    "max_prepared_transactions": "2",  # prepared_xacts
    "allow_in_place_tablespaces": "on",
    "fsync": "off",
}

NOT_RUN: dict[str, str] = {}
"""Tests that are not run, with the reason."""

_APT = """
Dir::State "{0}"; Dir::State::lists "{0}/lists"; Dir::State::status "{0}/status"; Dir::Cache "{0}/cache";
Dir::Etc::sourcelist "{0}/sources.list"; Dir::Etc::sourceparts "{0}/none"; Dir::Etc::preferences "{0}/none";
Dir::Etc::preferencesparts "{0}/none"; APT::Sandbox::User "root"; APT::Install-Recommends "false";
"""


@dataclass(frozen=True)
class RegressionSource:
    """PostgreSQL's regression tests on disk.

    :ivar tests: ``src/test/regress`` of the source.
    :ivar regress_so: ``regress.so``, with the C functions of the tests.
    """

    tests: Path
    regress_so: Path

    def schedule(self) -> list[str]:
        """Return the names of all tests, in an order in which they can run one after the other."""
        lines = (self.tests / "parallel_schedule").read_text().splitlines()
        return [name for line in lines if line.startswith("test:") for name in line.split()[1:]]


@dataclass
class RegressionRun:
    """What became of the tests.

    :ivar passed: the number of those whose output is exactly the expected one.
    :ivar failed: the others. Most depend on what pg_regress would arrange, such as the order of parallel tests.
    """

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


def default_cache() -> Path:
    """Return a directory that lasts and that a server running as another user can read."""
    return Path("/var/cache/airflow-pgbackup" if os.geteuid() == 0 else Path.home() / ".cache/airflow-pgbackup")


def fetch(major: int, cache: Path, *, source: Path | None = None, mirror: str | None = None) -> RegressionSource:
    """Return the tests of a major version, from Debian's packages unless they are in the cache already.

    :param source: an unpacked source tree of PostgreSQL to take them from; its ``regress.so`` must be built already, in
        ``src/test/regress``.
    :param mirror: a Debian mirror's URL; by default that of this machine's apt.
    :raises RuntimeError: they cannot be had here; the message says why.
    """
    if source is not None:
        found = RegressionSource(source / "src/test/regress", source / "src/test/regress/regress.so")
        if not found.regress_so.exists() or not found.tests.is_dir():
            raise RuntimeError(f"{found.regress_so} does not exist: run configure and make -C src/test/regress there")
        return found
    directory = cache / f"regression-{major}"
    library = directory / f"usr/lib/postgresql/{major}/lib/regress.so"
    found = RegressionSource(directory / "source/src/test/regress", library)
    complete = directory / ".complete"
    if not complete.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _download(major, directory, mirror or _apt_mirror())
        if not library.exists():  # before 18 no package has it
            _build(found, directory / f"usr/include/postgresql/{major}/server")
        complete.touch()
    return found


def _apt_mirror() -> str:
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if path.is_file() and (
            found := re.search(r"^(?:URIs:|deb\b.*?) *(https?://\S+/debian)/?(?:\s|$)", path.read_text(), re.M)
        ):
            return found[1]
    raise RuntimeError("this machine's apt names no Debian mirror: give --mirror, or --source")


def _download(major: int, directory: Path, mirror: str) -> None:
    if not shutil.which("apt-get") or major not in SUITES:
        raise RuntimeError(f"no apt-get here, or no Debian release with PostgreSQL {major}: give --source")
    keyring = next(iter(sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))), None)
    if keyring is None:
        raise RuntimeError("the package debian-archive-keyring is not installed")
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        apt = Path(temporary)
        for name in ("lists/partial", "cache/archives/partial", "packages", "none"):
            (apt / name).mkdir(parents=True)
        (apt / "status").touch()
        kinds = "".join(f"{kind} [signed-by={keyring}] {mirror} {SUITES[major]} main\n" for kind in ("deb", "deb-src"))
        (apt / "sources.list").write_text(kinds)
        (apt / "apt.conf").write_text(_APT.format(apt))
        env = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}

        def run(*command: str | Path, where: Path = apt / "packages") -> None:
            done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-800:]}")

        run("apt-get", "update", "-qq")
        run("apt-get", "source", "--download-only", "-qq", f"postgresql-{major}")
        run("apt-get", "download", "-qq", f"postgresql-server-dev-{major}")
        (directory / "source").mkdir()
        for archive in (apt / "packages").glob("*.orig.tar.*"):
            run("tar", "-xf", archive, "-C", directory / "source", "--strip-components=1", "--no-same-owner")
        for package in (apt / "packages").glob("*.deb"):
            run("dpkg", "-x", package, directory)


def _build(found: RegressionSource, headers: Path) -> None:
    """Compile the C functions of the tests, all in one file."""
    options = ["-O1", "-fPIC", "-shared", "-I", str(headers), "-o", str(found.regress_so)]
    try:
        done = subprocess.run(["cc", *options, found.tests / "regress.c"], capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"no C compiler here, to build {found.regress_so.name}") from None
    if done.returncode:
        raise RuntimeError(f"cannot build {found.regress_so.name}: {done.stderr.strip()[-800:]}")


def own_installation(bin_dir: Path, library: Path, directory: Path) -> Path:
    """Return the programs of a copy of this installation that has `library` among its own.

    A sandboxed server sees nothing but its installation, so the C functions must be part of it. PostgreSQL finds its
    directories relative to its programs, wherever they are.

    :param directory: an empty directory that everybody can read.
    """
    printed = subprocess.run(
        [bin_dir / "pg_config", "--bindir", "--sharedir", "--pkglibdir"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    root = Path(os.path.commonpath(printed))
    for path in map(Path, printed):
        shutil.copytree(path, directory / path.relative_to(root), copy_function=_link_or_copy, dirs_exist_ok=True)
    shutil.copy(library, directory / Path(printed[2]).relative_to(root) / library.name)
    return directory / Path(printed[0]).relative_to(root)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def run_tests(
    server: PostgresServer, source: RegressionSource, results: Path, on_failed: Callable[[str], object]
) -> RegressionRun:
    """Run the tests in schedule order in a new database ``regression``.

    :param results: an empty directory that everybody may write to; the server writes files there.
    :param on_failed: called with the name of each test whose output is not the expected one.
    """
    run, start = RegressionRun(), time.monotonic()
    with server.params.connect() as session:
        session.execute("CREATE DATABASE regression TEMPLATE template0")
        # As pg_regress does (create_database in src/test/regress/pg_regress.c).
        for setting, value in {
            "lc_messages": "C",
            "lc_monetary": "C",
            "lc_numeric": "C",
            "lc_time": "C",
            "bytea_output": "hex",
            "timezone_abbreviations": "Default",
        }.items():
            session.execute(f"ALTER DATABASE regression SET {setting} TO '{value}'")  # type: ignore[arg-type]
    (results / "results").mkdir()
    (results / "results").chmod(0o777)
    with client_environment(server.params.with_database(DATABASE)) as env:
        env = {
            **env,
            "PGTZ": "America/Los_Angeles",
            "PGDATESTYLE": "Postgres, MDY",
            "PGOPTIONS": "-c intervalstyle=postgres_verbose",
            "PGAPPNAME": "pg_regress",
            "PG_ABS_SRCDIR": str(source.tests),
            "PG_ABS_BUILDDIR": str(results),
            "PG_LIBDIR": str(server.bin_dir.parent / "lib"),
            "PG_DLSUFFIX": ".so",
            "LANG": "C",
        }
        for name in source.schedule():
            if name in NOT_RUN:
                continue
            path = results / "results" / f"{name}.out"
            with (source.tests / f"sql/{name}.sql").open("rb") as script, path.open("wb") as output:
                subprocess.run(
                    [
                        *(server.bin_dir / "psql", "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on"),
                        *("-v", "HIDE_TOAST_COMPRESSION=on"),
                    ],
                    stdin=script,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    cwd=results,
                )
            if _as_expected(source, name, path):
                run.passed += 1
            else:
                run.failed.append(name)
                on_failed(name)
    run.seconds = time.monotonic() - start
    return run


def _as_expected(source: RegressionSource, name: str, output: Path) -> bool:
    expected = [source.tests / f"expected/{name}.out", *(source.tests / f"expected/{name}_{n}.out" for n in range(10))]
    return any(
        path.exists() and subprocess.run(["diff", "-w", "-q", path, output], capture_output=True).returncode == 0
        for path in expected
    )
