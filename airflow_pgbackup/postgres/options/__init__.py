"""The options of PostgreSQL's tools as data: :class:`DumpOptions`, :class:`DumpAllOptions`, :class:`RestoreOptions`.

Each is a frozen dataclass with one typed, keyword-only field per flag; see
:class:`~airflow_pgbackup.postgres.options.tool.ToolOptions` for what they share.
"""

from airflow_pgbackup.postgres.options.compression import Compression, default_compression
from airflow_pgbackup.postgres.options.pg_dump import DumpOptions
from airflow_pgbackup.postgres.options.pg_dumpall import DumpAllOptions
from airflow_pgbackup.postgres.options.pg_restore import RestoreOptions

__all__ = ["Compression", "DumpAllOptions", "DumpOptions", "RestoreOptions", "default_compression"]
