"""The sdist has what its tests need, wheel and sdist install, and the command line works without Airflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

ROOT = Path(__file__).parents[2]
PARTS = ("airflow_pgbackup", "benchmarks", "dags", "docker", "docs", "tests")
FILES = (
    "Makefile",
    "pyproject.toml",
    "requirements-cli.txt",
    "constraints.txt",
    "constraints-lowest.txt",
    "LICENSE",
    ".dockerignore",
)
PIP = ("-m", "pip", "install", "--quiet", "--no-deps")


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(tree: Path, target: Path, kind: str) -> Path:
    """A wheel or sdist of a source tree."""
    run(sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", target, cwd=tree)
    (made,) = target.glob({"wheel": "*.whl", "sdist": "*.tar.gz"}[kind])
    return made


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist."""
    target = tmp_path_factory.mktemp("dist")
    build(ROOT, target, "wheel")
    build(ROOT, target, "sdist")
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree in the sdist."""
    target = tmp_path_factory.mktemp("sdist")
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(target, filter="data")
        else:
            archive.extractall(target)
    (tree,) = target.iterdir()
    return tree


def make_venv(directory: Path) -> Path:
    """A fresh environment; returns its bin directory."""
    run(sys.executable, "-m", "venv", directory)
    return directory / "bin"


def sources(tree: Path) -> set[str]:
    """The files that make test reads, by their paths in a source tree."""
    found = {path for part in PARTS for path in (tree / part).rglob("*") if path.is_file()}
    found |= {tree / name for name in FILES} | set(tree.glob("*.md"))
    ignored = re.compile(r"__pycache__|\.pyc$|^docs/_build|\.egg-info")
    return {name for path in found if not ignored.search(name := path.relative_to(tree).as_posix())}


def test_the_sdist_has_what_its_tests_need(unpacked: Path) -> None:
    wanted = {name for name in sources(ROOT) if not name.startswith("airflow_pgbackup/demo/dags/")}
    assert wanted > {"tests/integration/test_packaging.py", "Makefile", "README.md"}
    assert sorted(name for name in wanted if not (unpacked / name).is_file()) == []


def test_the_wheel_of_the_sdist_is_that_of_the_tree(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    packed = names(wheel)
    assert packed == names(build(unpacked, tmp_path, "wheel"))
    package = {name for name in sources(ROOT) if name.startswith("airflow_pgbackup/")}
    assert package <= packed, "schemas, example DAGs and py.typed too"
    assert "airflow_pgbackup/demo/dags/dvdrental_nightly.py" in packed
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in packed)


def test_the_sdist_installs(built: Path, tmp_path: Path) -> None:
    """pip builds it with what pyproject.toml names, from the package index."""
    python = make_venv(tmp_path / "venv") / "python"
    run(python, *PIP, next(built.glob("*.tar.gz")))
    run(python, "-c", "import airflow_pgbackup.provider_info as p; p.get_provider_info()", cwd=tmp_path)


IMPORT_ALL = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    root = importlib.import_module(f"airflow_pgbackup.{package}")
    for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
        if not module.name.startswith("airflow_pgbackup.cli.airflow"):
            importlib.import_module(module.name)
"""


def test_the_command_line_needs_no_airflow(
    wheel: Path, tmp_path: Path, server18: PostgresServer, fresh_database: Callable[..., ConnectionParams]
) -> None:
    bin_dir = make_venv(tmp_path / "venv")
    run(bin_dir / "python", *PIP, "--require-hashes", "-r", ROOT / "requirements-cli.txt")
    run(bin_dir / "python", *PIP, wheel)
    installed = json.loads(run(bin_dir / "python", "-m", "pip", "list", "--format=json"))
    assert not [each["name"] for each in installed if each["name"].startswith("apache-airflow")]

    run(bin_dir / "python", "-c", IMPORT_ALL, "postgres", "repository", "encryption", "backup", "cli")

    source = fresh_database(server18, None, "create table film as select generate_series(1, 1000) film_id")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PGHOST": source.host,
        "PGPORT": source.port,
        "PGUSER": source.user,
        "PGDATABASE": source.dbname,
        "PGPASSWORD": str(source.password),
        "PGBACKUP_CLIENT_DIRS": str(postgres_bin_dir(18)),
    }

    def pgbackup(*arguments: str) -> dict[str, object]:
        done: dict[str, object] = json.loads(run(bin_dir / "pgbackup", *arguments, "--json", env=env))
        return done

    here = f"file://{tmp_path}/repository"
    pgbackup("init", here)
    series = str(pgbackup("dump", here, "--server", "prod")["series"])
    assert pgbackup("verify", here, series)["verified"] == "archive"
    target = f"{source.dbname}_restored"
    pgbackup("restore", here, series, "-d", target, "--mode", "create")
    run(bin_dir / "pgbackup", "mask", "init", tmp_path / "rules.yaml", "--dbname", target, env=env)
    assert "film_id" in (tmp_path / "rules.yaml").read_text()
    with source.with_database(target).connect() as session:
        assert session.execute("select count(*), sum(film_id) from film").fetchone() == (1000, 500_500)
    with source.connect() as session:
        session.execute(f'drop database "{target}" with (force)')


def test_its_requirements_are_those_of_the_package() -> None:
    """requirements-cli.txt is made by make lock; each version is the one in constraints.txt."""
    pins = re.compile(r"^([a-z0-9-]+)==([^ ]+)", re.MULTILINE)
    cli, all_pins = (
        set(pins.findall((ROOT / name).read_text())) for name in ("requirements-cli.txt", "constraints.txt")
    )
    assert cli <= all_pins
    direct = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert direct is not None
    wanted = set(re.findall(r'"([a-z0-9-]+)', direct[1]))
    for_airflow = {name for name in wanted if name.startswith(("apache-airflow", "pydantic"))}
    assert wanted - for_airflow <= {name for name, _ in cli}
    assert not for_airflow & {name for name, _ in cli}
    assert not re.search("index-url|https?://", (ROOT / "requirements-cli.txt").read_text())
