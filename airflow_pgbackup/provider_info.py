"""The description of this provider that Airflow reads, as ``airflow providers get`` and ``airflow config`` show it.

Every Airflow process imports this module, so it imports nothing but the version.
Its shape is Airflow's ``provider_info.schema.json``.
"""

from __future__ import annotations

from typing import Any

from airflow_pgbackup import __version__

_INTEGRATION = "PostgreSQL backup"


def get_provider_info() -> dict[str, Any]:
    """Return the provider as Airflow's ``ProvidersManager`` expects it.

    ``package-name`` must be the name of the distribution: another one stops the discovery of every provider.
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
        "hooks": _modules("hooks", "identities", "pgbackup", "repository"),
        "operators": _modules(
            "operators",
            "backup_set",
            "check",
            "discover",
            "dump",
            "dump_all",
            "prune",
            "refresh",
            "report",
            "restore",
            "restore_set",
            "rewrap",
            "upload",
            "verify",
        ),
        "sensors": _modules("sensors", "freshness"),
        "triggers": _modules("triggers", "freshness"),
        "asset-uris": [{"schemes": ["pgbackup"], "handler": "airflow_pgbackup.assets.normalize_uri"}],
        "notifications": ["airflow_pgbackup.notifications.heartbeat.HeartbeatNotifier"],
        "extra-links": ["airflow_pgbackup.links.BackupPageLink", "airflow_pgbackup.links.S3ConsoleLink"],
        "cli": ["airflow_pgbackup.cli.airflow.get_cli_commands"],
        "config": {
            "pgbackup": {
                "description": "Defaults of the tasks of airflow-pgbackup. "
                "A variable PGBACKUP_<NAME> in a worker's environment takes precedence over this section.",
                "options": {
                    "client_dirs": _option(
                        "Directories with PostgreSQL's programs (pg_dump, pg_dumpall, pg_restore), searched before the "
                        "standard locations; separated as in PATH.",
                        default="",
                        example="/opt/postgresql-18/bin:/opt/postgresql-17/bin",
                    ),
                    "lock_wait_timeout": _option(
                        "Seconds that pg_dump waits for its table locks before it fails. While a dump waits behind "
                        "a schema change, every other session waits behind the dump.",
                        type="float",
                        default="120",
                    ),
                    "max_replay_lag": _option(
                        "Seconds: a standby that is further behind its primary is not dumped; 0 is no limit.",
                        type="float",
                        default="0",
                    ),
                    "max_bytes_per_second": _option(
                        "Bytes per second that pg_dump writes at most, which limits the load of the source; 0 is no "
                        "limit. Dumps in format directory are refused with it.",
                        type="float",
                        default="0",
                    ),
                    "lock_holder_query": _option(
                        "While a dump waits for a lock, its log names the session that holds it: hide or show the "
                        "first words of that session's query.",
                        default="hide",
                    ),
                    "dump_deadline": _option(
                        "Seconds after which a running dump is stopped. Until it ends, it holds its locks and an old "
                        "snapshot, which keeps VACUUM from removing dead rows.",
                        type="float",
                        default="43200",
                    ),
                    "verify_deadline": _option(
                        "The fixed part, in seconds, of the deadline for reading an archive to its end. pg_restore "
                        "never ends on some truncated tar archives.",
                        type="float",
                        default="600",
                    ),
                    "verify_bytes_per_second": _option(
                        "The deadline for reading an archive grows by its size divided by this rate.",
                        type="float",
                        default="2000000",
                    ),
                    "compress_by": _option(
                        "Who compresses dumps in custom format: airflow-pgbackup, on up to 4 cores, or pg_dump, on "
                        "one. The format of the archive is the same.",
                        default="airflow-pgbackup",
                        example="pg_dump",
                    ),
                    "recipients": _option(
                        "The public keys of age to which new artifacts are encrypted, separated by commas or "
                        "newlines: age1… or SSH public keys. Empty: no encryption.",
                        default="",
                        example="age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
                    ),
                    "identity_file": _option(
                        "A file, mode 0600, or 0640 if root owns it, with the secret key of a recipient, for reading "
                        "encrypted artifacts.",
                        default="",
                        example="/etc/pgbackup/key.txt",
                    ),
                    "identity_conn_id": _option(
                        "The Airflow connection whose password is such a key; identity_file is ignored then.",
                        default="",
                        example="pgbackup_identity",
                    ),
                    "rehearsal_containment": _option(
                        "A rehearsal restores into a server in a sandbox (bubblewrap). If no sandbox can be made, "
                        "prefer rehearses without one and reports it as uncontained; require makes the result "
                        "not proven.",
                        default="prefer",
                        example="require",
                    ),
                    "temp_dir": _option(
                        "Directory for the private copy of an artifact that a tool opens by its name. Empty: the "
                        "system's directory for temporary files.",
                        default="",
                        example="/var/lib/pgbackup",
                    ),
                    "masking_key_file": _option(
                        "The file with the key that makes masks deterministic: mode 0600, or 0640 if root owns it.",
                        default="",
                        example="/etc/airflow/masking.key",
                    ),
                    "lock_for": _option(
                        "How long S3 refuses to delete the objects of a backup: 30d. The bucket needs object lock. "
                        "Empty: the bucket's own default. A lock_for of the AWS connection takes precedence.",
                        default="",
                        example="30d",
                    ),
                    "lock_mode": _option(
                        "governance: roles with s3:BypassGovernanceRetention may delete them earlier. "
                        "compliance: nobody may.",
                        default="governance",
                    ),
                    "page_repositories": _option(
                        "The repositories that the Backups page of Airflow's UI shows: their URIs, separated by "
                        "commas.",
                        default="",
                        example="s3://my-backups/pg",
                    ),
                    "page_aws_conn_id": _option(
                        "The Airflow connection with which the page reads them in S3. Empty: boto3's own chain.",
                        default="aws_default",
                    ),
                    "page_fleet": _option(
                        "The file with the mapping of pgbackup_dags: the page also shows its repositories, and takes "
                        "ages, levels and retention from it.",
                        default="",
                        example="/opt/airflow/dags/fleet.yaml",
                    ),
                    "page_max_age": _option(
                        "Seconds: the page calls a series late when its newest verified backup is older, unless the "
                        "mapping has a freshness for its server.",
                        type="float",
                        default="93600",
                    ),
                    "page_level": _option(
                        "The level at which that backup must be verified: integrity, archive or restore.",
                        default="archive",
                    ),
                    "page_retention": _option(
                        "The parameters of prune as JSON, time spans as text such as 36h. The page then shows what the "
                        "next prune would delete.",
                        default="",
                        example='{"keep_daily": 7, "keep_weekly": 4}',
                    ),
                    "page_verify_dag_id": _option(
                        "The DAG that the button Verify now of the Backups page triggers, with the params repository, "
                        "series and backup_id. Empty: no such button.",
                        default="",
                        example="verify_backup",
                    ),
                    "page_rehearse_dag_id": _option(
                        "The DAG that the button Rehearse now of the Backups page triggers. Empty: no such button.",
                        default="",
                        example="rehearse_backup",
                    ),
                    "page_restore_dag_id": _option(
                        "The DAG that the button Plan a restore of the Backups page triggers; it should ask for an "
                        "approval before it changes anything. Empty: no such button.",
                        default="",
                        example="restore_with_approval",
                    ),
                },
            }
        },
    }


def _modules(package: str, *names: str) -> list[dict[str, Any]]:
    modules = [f"airflow_pgbackup.{package}.{name}" for name in names]
    return [{"integration-name": _INTEGRATION, "python-modules": modules}]


def _option(description: str, *, default: str, type: str = "string", example: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type,
        "example": example,
        "default": default,
    }
