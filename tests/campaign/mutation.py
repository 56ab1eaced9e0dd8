"""Mutation testing: does a test fail if a line of the code is changed?

    .venv/bin/python -m tests.campaign.mutation --part retention --json mutation.json
    .venv/bin/python -m tests.campaign.mutation                 # all parts, hours

mutmut changes one expression at a time and runs the tests of that part, those that are fast. It is installed into
``.mutation/``, with the packages of ``.venv``, and works on a copy of the code there. A mutant that no test kills
survives: either a test is missing, or the change makes no difference that anybody sees. Survivors are no violations;
:data:`EXPECTED` has those that were looked at, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.results import part_result, write_result

MUTMUT = "mutmut==3.8.1"
_ROOT = Path(__file__).parents[2]
_HOME = _ROOT / ".mutation"
_KILLED = ("killed", "timeout")
_COPIED = ("airflow_pgbackup", "tests", "docs", "dags")


@dataclass(frozen=True)
class Part:
    """Modules, and the tests that should fail if one of these is changed.

    :ivar slow: parts of the names of tests that take seconds each, and are left out.
    :ivar limit: seconds after which a mutant counts as killed, beside a multiple of what its tests take.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()
    limit: float = 60.0


PARTS = {
    "retention": Part(("repository/retention.py",), ("tests/unit/repository/test_retention.py",)),
    "manifest": Part(
        ("repository/manifest.py", "repository/json_document.py", "repository/verification.py"),
        ("tests/unit/repository/test_manifest.py",),
    ),
    "catalogue": Part(
        ("repository/catalogue.py", "repository/state.py", "repository/layout.py"),
        ("tests/unit/repository/test_catalogue.py", "tests/unit/repository/test_layout.py"),
    ),
    "process": Part(
        ("postgres/tools/process.py", "postgres/tools/outcome.py", "postgres/tools/stderr.py"),
        ("tests/unit/postgres/test_process.py", "tests/unit/postgres/test_tool_messages.py"),
        slow=("holds_the_pipe", "worker_was_killed", "ignores_term", "slow_log", "signals_before_it_waits"),
        limit=20.0,
    ),
    "verify": Part(
        ("backup/verify.py", "backup/verification_run.py", "backup/checked.py"),
        (
            "tests/unit/backup/test_checked.py",
            "tests/unit/backup/test_lost_verdicts.py",
            "tests/unit/backup/test_verification_run.py",
            "tests/integration/backup/test_verify.py",
        ),
    ),
    "compare": Part(
        ("postgres/compare/comparison.py", "postgres/archive/row_digests.py"),
        ("tests/unit/postgres/test_row_digests.py", "tests/unit/postgres/test_comparison.py"),
    ),
}
_NO_DIFFERENCE = {
    "no two backups of a series are equal": ("repository.retention.x__decide__mutmut_61",),
    "as many keys as backups": (
        "repository.retention.x__apply__mutmut_28",
        "repository.retention.x__apply__mutmut_31",
        "repository.retention.x__apply__mutmut_34",
    ),
    "an encoded name has no slash, so any other split gives an invalid name too": (
        "repository.layout.xǁSeriesǁparse__mutmut_3",
    ),
    "quote() keeps the letter X anyway": ("repository.layout.x__encode__mutmut_6",),
    "only the number of threads": (
        "repository.catalogue.x_read_catalogue__mutmut_21",
        "repository.catalogue.x_read_manifests__mutmut_7",
    ),
    "the default is the same number": ("repository.catalogue.x_read_manifest__mutmut_11",),
    "both sort before the name of every scope": ("repository.catalogue.x_series_order__mutmut_4",),
    "a bound of memory; what is returned is cut again": (
        "repository.catalogue.x__catalogue__mutmut_17",
        "repository.catalogue.x__catalogue__mutmut_18",
    ),
    "unread, so only slower": (
        "postgres.compare.comparison.x__compare_copies__mutmut_11",
        "postgres.compare.comparison.x__compare_copies__mutmut_12",
    ),
    "the same steps, read again": ("postgres.compare.comparison.x_compare_sequences__mutmut_44",),
    "neither are equal values called drawn, nor is an increment 0": (
        "postgres.compare.comparison.x__drawn__mutmut_8",
        "postgres.compare.comparison.x__drawn__mutmut_10",
    ),
    "no columns, either way": ("postgres.archive.row_digests.xǁRowHasherǁ__init____mutmut_12",),
    "the default of Python 3.11": ("postgres.archive.row_digests.xǁRowHasherǁupdate__mutmut_29",),
    "a failure ends with a pass, whose rank is 1 or higher": ("repository.state.x_standing__mutmut_23",),
    "verify takes its message from the checks": (
        "backup.verification_run.xǁVerificationRunǁ_judge__mutmut_32",
        "backup.verification_run.xǁVerificationRunǁ_judge__mutmut_37",
    ),
    "the same error with the last piece, instead of after it": ("backup.checked.xǁExpectedǁread__mutmut_7",),
    "stored_details() keeps the number of checks": (
        "backup.verify.x__record__mutmut_8",
        "backup.verify.x__record__mutmut_11",
        "backup.verify.x__record__mutmut_12",
    ),
    "the same error, but for its cause": ("backup.verify.x_verify__mutmut_76",),
    "an equal error": ("backup.verify.x__not_passed__mutmut_7",),
}
EXPECTED = {f"airflow_pgbackup.{name}": reason for reason, names in _NO_DIFFERENCE.items() for name in names}
"""Mutants that may survive, by the name that mutmut gives them, with the reason.

A change of a function moves its numbers."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--children", type=int, default=2, help="mutants at a time")
    parser.add_argument("--properties", action="store_true", help="run the tests by hypothesis too, which take longest")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    mutmut = _install()
    rows, outcomes, survivors = [], dict[str, int](), []
    for name in arguments.part or PARTS:
        results = _run(mutmut, PARTS[name], arguments.children, properties=arguments.properties)
        counts: dict[str, int] = {}
        for mutant, result in results.items():
            counts[result] = counts.get(result, 0) + 1
            outcomes[result] = outcomes.get(result, 0) + 1
            if result not in _KILLED and mutant not in EXPECTED:
                survivors.append([name, mutant, result, _diff(mutmut, mutant)])
        killed = sum(counts.get(result, 0) for result in _KILLED)
        expected = sum(mutant in EXPECTED for mutant, result in results.items() if result not in _KILLED)
        left = len(results) - killed - expected
        rows.append([name, len(results), killed, expected, left, f"{100 * killed / max(len(results), 1):.0f} %"])
        print(f"{name}: {counts}", flush=True)
    for _, mutant, result, diff in survivors:
        print(f"\n{mutant}: {result}\n{diff}", flush=True)
    report = part_result(
        "mutation",
        seconds=time.monotonic() - began,
        parameters={"tool": MUTMUT, "properties": arguments.properties, "parts": ", ".join(arguments.part or PARTS)},
        cases=sum(outcomes.values()),
        outcomes=outcomes,
        violations=[],
        tables={
            "Mutants": (["part", "mutants", "killed", "expected", "survived", "killed, of all"], rows),
            "Surviving mutants": (["part", "mutant", "result", "change"], survivors),
        },
    )
    write_result(report, arguments.json)
    return 0


def _install() -> Path:
    """Return the program, in an environment that also has the packages of this one."""
    environment = _HOME / "venv"
    program = environment / "bin" / "mutmut"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", MUTMUT], check=True)
        packages = next((environment / "lib").glob("python*/site-packages"))
        (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return program


def _run(mutmut: Path, part: Part, children: int, *, properties: bool) -> dict[str, str]:
    """Run the mutants of a part; return what became of each."""
    selected = [] if properties else ["-m", "not hypothesis"]
    selected += ["-k", f"not ({' or '.join(part.slow)})"] if part.slow else []
    work = _HOME / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for name in _COPIED:
        shutil.copytree(_ROOT / name, work / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    modules = [f"airflow_pgbackup/{module}" for module in part.modules]
    (work / "pyproject.toml").write_text(
        f"""\
[tool.mutmut]
source_paths = ["airflow_pgbackup"]
only_mutate = {json.dumps(modules)}
also_copy = ["docs", "dags"]
pytest_add_cli_args_test_selection = {json.dumps(part.tests)}
pytest_add_cli_args = {json.dumps(["-p", "no:cacheprovider", "-p", "no:xdist", *selected])}
use_git_change_detection = false
track_dependencies = false
timeout_constant = {part.limit}

[tool.pytest.ini_options]
pythonpath = ["tests/integration"]
timeout = 600
"""
    )
    _mutmut(mutmut, "run", "--max-children", str(children))
    found: dict[str, str] = {}
    for line in _mutmut(mutmut, "results", "--all", "true").splitlines():
        name, colon, result = line.strip().partition(": ")
        if colon and name.startswith("airflow_pgbackup."):
            found[name] = result
    return found


def _diff(mutmut: Path, mutant: str) -> str:
    lines = _mutmut(mutmut, "show", mutant).splitlines()
    return "\n".join(line for line in lines if line[:1] in "+-" and not line.startswith(("+++", "---")))


def _mutmut(mutmut: Path, *arguments: str) -> str:
    command = [str(mutmut), *arguments]
    if os.geteuid() == 0 and shutil.which("unshare"):
        # A mutant of the code that kills processes, or a test that it leads astray, may reach no other process. The
        # shell is the first process, which reaps orphans.
        namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*namespace, "sh", "-c", '"$@"; exit $?', "sh", *command]
    done = subprocess.run(
        command, cwd=_HOME / "work", env={**os.environ, "NO_COLOR": "1"}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode and arguments[0] != "run":
        raise SystemExit(f"mutmut {arguments[0]} failed with exit status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
