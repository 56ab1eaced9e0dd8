"""The Dockerfile, as far as it can be checked without Docker: what it copies, what it pins, and who runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
PIN = re.compile(r"^([a-z0-9-]+)==([^ ]+)", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Return each instruction of the Dockerfile and its arguments; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            found[rest.split(" AS ")[1]] = current = []
        current.append((word, rest))
    return found


def pins(name: str) -> set[tuple[str, str]]:
    return set(PIN.findall((ROOT / name).read_text()))


def is_ignored(path: str) -> bool:
    """Return whether .dockerignore keeps a path of the build context out: ``*``, then ``!`` for each exception."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return not any(path == line[1:] or path.startswith(f"{line[1:]}/") for line in lines if line.startswith("!"))


def test_every_copied_file_exists_and_is_in_the_build_context() -> None:
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]
    assert {"airflow_pgbackup", "dags", "requirements-cli.txt", "docker/requirements-worker.txt"} <= set(copied)
    assert [path for path in copied if not (ROOT / path).exists() or is_ignored(path)] == []


def test_copies_from_stages_come_from_earlier_ones() -> None:
    names = list(stages())
    for number, stage in enumerate(stages().values()):
        sources = [match[1] for word, rest in stage if word == "COPY" and (match := re.match(r"--from=(\S+)", rest))]
        assert set(sources) <= set(names[:number])


def test_base_images_are_pinned_by_tag_and_fit_the_lock_files() -> None:
    bases = [stage[0][1].split(" AS ")[0] for stage in stages().values()]
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", base) for base in bases), bases
    airflow = dict(pins("docker/requirements-worker.txt"))["apache-airflow"]
    assert f"apache/airflow:slim-{airflow}-python3.12" in bases
    assert {"python:3.12-slim-trixie"} == {base for base in bases if base.startswith("python:")}


@pytest.mark.parametrize(
    "name", ["requirements-cli.txt", "docker/requirements-worker.txt", "docker/requirements-build.txt"]
)
def test_packages_are_those_of_the_tests_with_hashes(name: str) -> None:
    assert pins(name) <= pins("constraints.txt")
    for requirement in re.split(r"\n(?=\S)", (ROOT / name).read_text().strip()):
        assert "--hash=sha256:" in requirement
        assert PIN.match(requirement)


def test_pip_installs_nothing_without_a_hash_but_our_own_wheel() -> None:
    commands = re.findall(r"pip install (.*?)(?:&&|$)", "\n".join(rest for _, rest in instructions()), re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert "--no-deps" in command
        assert "--require-hashes --requirement" in command or command.split()[-1] == "/tmp/wheel/*.whl"


def test_the_images_run_as_another_user_than_root_with_all_clients() -> None:
    for name in ("worker", "pgbackup"):
        stage = stages()[name]
        users = [rest for word, rest in stage if word == "USER"]
        assert users[-1] in ("airflow", "50000:0")
        assert any("install-clients 15 16 17 18" in rest for word, rest in stage if word == "RUN")


def test_nothing_secret_is_given_to_the_build() -> None:
    words = {word for word, _ in instructions()}
    assert words == {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT"}  # neither ARG nor ENV


def test_clients_are_installed_one_for_each_version(tmp_path: Path) -> None:
    """The script with stand-ins for apt and the programs: they write down how they were called."""
    calls = tmp_path / "calls"
    root = tmp_path / "root"
    script = (ROOT / "docker" / "install-clients").read_text()
    for path in ("/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh", "/usr/lib/postgresql/", "/var/lib/apt"):
        assert path in script
        script = script.replace(path, f"{root}{path}")
    programs = ["bin/apt-get", "root/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh"]
    programs += [f"root/usr/lib/postgresql/{major}/bin/pg_dump" for major in (17, 18)]
    for program in programs:
        file = tmp_path / program
        file.parent.mkdir(parents=True)
        file.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {calls}\n')
        file.chmod(0o755)
    copy = tmp_path / "install-clients"
    copy.write_text(script)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", copy, "17", "18"], env=environment, check=True)
    assert calls.read_text().splitlines() == [
        "apt-get update",
        "apt-get install --yes --no-install-recommends ca-certificates postgresql-common",
        "apt.postgresql.org.sh -y",
        "apt-get install --yes --no-install-recommends postgresql-client-17",
        "pg_dump --version",
        "apt-get install --yes --no-install-recommends postgresql-client-18",
        "pg_dump --version",
        "apt-get clean",
    ]
    (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    assert subprocess.run(["sh", copy, "17"], env=environment).returncode == 100
