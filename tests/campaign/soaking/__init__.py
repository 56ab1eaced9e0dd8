"""The parts of the soak: what runs, the faults, the samples, their trends and plots, and what must hold at the end."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
"""The project's directory."""

# As pytest does: the helpers of several directories of tests are modules of their own.
sys.path[:0] = [str(ROOT / "tests" / name) for name in (".", "distributed", "integration")]
