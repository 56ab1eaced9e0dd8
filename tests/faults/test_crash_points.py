"""A kill at each step of a verb: a sample of the long run, ``tests/campaign/crash_points.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 8


@pytest.mark.timeout(900)  # it flushes to disk some hundred times, which takes long beside much else
def test_killed_at_each_step(tmp_path: Path) -> None:
    """What is left is sound, a retry mends it, and a sweep leaves nothing else; see the module."""
    report = tmp_path / "report.json"
    arguments = ["--scripts", "--store=local", "--verb=prune", "--verb=adopt-move", f"--most={MOST}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaign.crash_points", *arguments, f"--json={report}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["violations"] == []
    adoption, prune = sorted(found["tables"]["A kill at each step of each verb"]["rows"])
    assert adoption[2] > prune[2] > 2, "steps"
    assert (adoption[3], prune[3]) == (MOST, min(MOST, prune[2])), "each was killed at its step"
    kinds = {step.split()[1] for steps in found["steps"].values() for step in steps}
    assert kinds >= {"open", "write", "os.link", "os.fsync", "os.remove", "os.rmdir"}, "what changes files is a step"
