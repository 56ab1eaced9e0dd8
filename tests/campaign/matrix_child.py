"""Run pgbackup with faults of its own: ``python matrix_child.py ORDER ARGUMENT…``, run as a script.

ORDER is a JSON object: ``ready``, a descriptor that gets a byte when pgbackup starts; ``fsize``, the largest size of a
file in bytes, also for its children; ``faulty``, ``[directory, errno, first, times]``: these calls on paths below
the directory fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "faults"))

from faulty_files import FaultyFiles

from airflow_pgbackup.cli import main
from airflow_pgbackup.repository.s3 import parts

parts.PATIENCE = 10.0  # otherwise a lasting fault takes minutes

if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    sys.argv = ["pgbackup", *sys.argv[2:]]
    if order.get("fsize") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["fsize"], resource.RLIM_INFINITY))
    tempfile.gettempdir()  # writes a file, which an error of unlink() would leave
    faults: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if order.get("faulty"):
        directory, number, first, times = order["faulty"]
        faults = FaultyFiles(Path(directory), number, lambda call: first <= call < first + times).at_work()
    with faults:
        os.write(order["ready"], b".")
        os.close(order["ready"])
        status = main()
    sys.exit(status)
