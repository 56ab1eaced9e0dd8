"""The identities of an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_pgbackup.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_pgbackup.encryption.identities import Identities


def identities_of(conn_id: str) -> Identities:
    """Return the secret keys that a connection of any type has as its password. Airflow's logs mask them from then on.

    :raises AirflowNotFoundException: there is no connection with that id.
    :raises ConfigurationError: it has no password, or one that is no identity of age.
    """
    from airflow_pgbackup.encryption.identities import Identities

    text = BaseHook.get_connection(conn_id).password
    if not text:
        raise ConfigurationError(
            f"connection {conn_id} has no password",
            hint="Store the secret key there: AGE-SECRET-KEY-1…, as age-keygen prints it, or an SSH private key.",
        )
    for line in (text, *text.splitlines()):
        mask_secret(line)
    return Identities.parse(text, f"connection {conn_id}")
