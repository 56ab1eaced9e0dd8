"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_processors(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this process may use at a time, at least 1.

    The affinity counts, and the CPU limit of a container: a pod with a limit of 2 sees all processors of its node, but
    gets the time of two. A fraction is rounded up. The limit is ``cpu.max`` of cgroup v2, of this group and of those
    above it (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files); with v1 only the affinity counts.

    :param proc: where procfs is mounted.
    :param cgroups: where cgroup v2 is mounted.
    """
    most = len(os.sched_getaffinity(0))
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return most
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if group is None:
        return most
    inside = Path(group)
    for each in (inside, *inside.parents):
        try:
            quota, period = (cgroups / each / "cpu.max").read_text().split()
            if quota != "max":
                most = min(most, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):  # no limit here
            continue
    return max(1, most)
