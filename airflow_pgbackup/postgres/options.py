"""The options of PostgreSQL's tools as data: :class:`DumpOptions`, :class:`DumpAllOptions`, :class:`RestoreOptions`.

Each is a frozen dataclass with one typed, keyword-only field per flag; see
:class:`~airflow_pgbackup.postgres.tool_options.ToolOptions` for what they share.
"""

from airflow_pgbackup.postgres.dump_compression import Compression, default_compression
from airflow_pgbackup.postgres.dump_options import DumpOptions
from airflow_pgbackup.postgres.dumpall_options import DumpAllOptions
from airflow_pgbackup.postgres.restore_options import RestoreOptions

__all__ = ["Compression", "DumpAllOptions", "DumpOptions", "RestoreOptions", "default_compression"]
