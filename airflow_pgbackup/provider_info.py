"""What Airflow reads about this provider: ``airflow providers list``, ``airflow providers get``, ``airflow config``.

Every Airflow process imports this module, so it imports nothing but the version.
Its shape is Airflow's ``provider_info.schema.json``.
"""

from __future__ import annotations

from typing import Any

from airflow_pgbackup import __version__

_INTEGRATION = "PostgreSQL backup"


def get_provider_info() -> dict[str, Any]:
    """The provider as Airflow's ``ProvidersManager`` wants it.

    ``package-name`` must be the distribution's own name: a different one stops the discovery of every provider.
    """
    return {
        "package-name": "airflow-pgbackup",
        "name": "PostgreSQL backup",
        "description": "PostgreSQL logical backups on an Airflow schedule, proven restorable before they count.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://www.postgresql.org/docs/current/backup-dump.html",
                "tags": ["software"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_pgbackup.hooks.pgbackup"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_pgbackup.operators.check",
                    "airflow_pgbackup.operators.dump",
                    "airflow_pgbackup.operators.restore",
                    "airflow_pgbackup.operators.verify",
                    "airflow_pgbackup.operators.upload",
                ],
            }
        ],
        "cli": ["airflow_pgbackup.cli.airflow.get_cli_commands"],
        "config": {
            "pgbackup": {
                "description": "What the tasks of airflow-pgbackup do where a DAG says nothing. "
                "A variable PGBACKUP_<NAME> in a worker's environment comes before this section.",
                "options": {
                    "client_dirs": _option(
                        "Folders with PostgreSQL's programs (pg_dump, pg_dumpall, pg_restore), looked into before the "
                        "well-known ones. Several are separated as in PATH.",
                        default="",
                        example="/opt/postgresql-18/bin:/opt/postgresql-17/bin",
                    ),
                    "lock_wait_timeout": _option(
                        "Seconds that pg_dump waits for its table locks before it gives up. A dump that waits behind "
                        "a schema change makes everybody else wait behind it.",
                        type="float",
                        default="120",
                    ),
                    "dump_deadline": _option(
                        "Seconds after which a running dump is stopped. It holds its locks and an old snapshot, "
                        "which keeps VACUUM from its work, all that time.",
                        type="float",
                        default="43200",
                    ),
                    "verify_deadline": _option(
                        "The fixed part, in seconds, of the time within which an archive must have been read to its "
                        "end. A truncated tar archive makes pg_restore spin for ever.",
                        type="float",
                        default="600",
                    ),
                    "verify_bytes_per_second": _option(
                        "The time for reading an archive grows by its size over this rate.",
                        type="float",
                        default="2000000",
                    ),
                    "compress_by": _option(
                        "Who compresses dumps in custom format: airflow-pgbackup, on all cores, or pg_dump, in its one "
                        "thread. The archive is of the same format either way.",
                        default="airflow-pgbackup",
                        example="pg_dump",
                    ),
                    "rehearsal_containment": _option(
                        "A rehearsal restores into a server that runs in a sandbox (bubblewrap). Where none can be "
                        "made: prefer rehearses all the same and reports it as uncontained; require makes the result "
                        "not proven.",
                        default="prefer",
                        example="require",
                    ),
                    "temp_dir": _option(
                        "Where a private copy of an artifact goes when a tool opens it by its name. Empty is the "
                        "system's directory for temporary files.",
                        default="",
                        example="/var/lib/pgbackup",
                    ),
                },
            }
        },
    }


def _option(description: str, *, default: str, type: str = "string", example: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type,
        "example": example,
        "default": default,
    }
