"""The command line: ``pgbackup …``, which works without Airflow, and the same commands as ``airflow pgbackup …``.

Each command calls one verb of :mod:`airflow_pgbackup.backup`; ``cmd_<verb>.py`` holds it.
Exit status: :data:`.vocabulary.EXIT_STATUS`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

_FAILED, _INTERRUPTED = 1, 130  # as in EXIT_STATUS, which may not be loaded yet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; by default those of this process.
    :return: the exit status, see :data:`.vocabulary.EXIT_STATUS`.
    """
    try:
        # Here, and not above, so that Ctrl-C ends the program properly while it loads its modules, too.
        from airflow_pgbackup.cli.parser import parse

        parsed = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        if isinstance(parsed, int):
            return parsed
        from airflow_pgbackup.cli.run import run

        return run(parsed.command, parsed)
    except KeyboardInterrupt:
        sys.stderr.write("pgbackup: interrupted\n")
        return _INTERRUPTED
    except (ImportError, OSError, MemoryError) as error:  # while modules are loaded
        sys.stderr.write(f"pgbackup: cannot start: {' '.join(str(error).split()) or type(error).__name__}\n")
        return _FAILED
