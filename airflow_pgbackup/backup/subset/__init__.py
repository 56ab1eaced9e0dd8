"""Restore a part of a database: some of its schemas and tables, and of their rows those that a WHERE selects.

- :mod:`.request`: what is asked for.
- :mod:`.selection`: which entries of the archive that takes.
- :mod:`.foreign_keys`: the foreign keys in the archive, and which of them are followed.
- :mod:`.plan`: both together, and what is left out.
- :mod:`.row_filter`: triggers that ignore the other rows while they are loaded.
- :mod:`.orphans`: the deletion of rows whose referenced rows are missing.
"""

from airflow_pgbackup.backup.subset.plan import SubsetPlan, TableCount
from airflow_pgbackup.backup.subset.request import Subset

__all__ = ["Subset", "SubsetPlan", "TableCount"]
