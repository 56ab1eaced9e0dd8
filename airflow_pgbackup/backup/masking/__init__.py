"""Masking personal data while a backup is loaded.

- :mod:`.rules`, :mod:`.pattern`, :mod:`.read_rules`: the file of rules.
- :mod:`.key`: the secret that makes masks deterministic.
- :mod:`.masking`: triggers that mask rows as they are loaded.
- :mod:`.samples`, :mod:`.leaks`: search a copy for values that should have been masked.
"""

from airflow_pgbackup.backup.masking.key import MaskingKey
from airflow_pgbackup.backup.masking.leaks import Leak, find_leaks
from airflow_pgbackup.backup.masking.masking import Masking
from airflow_pgbackup.backup.masking.read_rules import load_rules
from airflow_pgbackup.backup.masking.rules import MaskingRules
from airflow_pgbackup.backup.masking.samples import Samples, sample_values

__all__ = ["Leak", "Masking", "MaskingKey", "MaskingRules", "Samples", "find_leaks", "load_rules", "sample_values"]
