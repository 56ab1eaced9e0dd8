"""The secret keys of Airflow connections: identities of age, and the key of masking rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_pgbackup.errors import ConfigurationError, NotProven
from airflow_pgbackup.hooks._missing import no_connection

if TYPE_CHECKING:
    from airflow_pgbackup.backup.masking import MaskingKey
    from airflow_pgbackup.encryption.identities import Identities


def identities_of(conn_id: str) -> Identities:
    """Return the secret keys that a connection of any type has as its password. Airflow's logs mask them from then on.

    :raises NotProven: Airflow finds no connection with that id, perhaps only on this worker.
    :raises ConfigurationError: it has no password, or one that is not an identity of age.
    """
    from airflow_pgbackup.encryption.identities import Identities, secrets_of_age

    hint = "Store the secret key there: AGE-SECRET-KEY-1…, as age-keygen prints it, or an SSH private key."
    try:
        secret = _secret(conn_id, hint)
    except AirflowNotFoundException:
        raise NotProven(
            f"Airflow finds no connection {conn_id!r}, which should have the secret key",
            hint="Create it with that key as its password, or let this worker read it; only dumps need no key.",
        ) from None
    for key in secrets_of_age(secret):  # also within a line
        mask_secret(key)
    return Identities.parse(secret, f"connection {conn_id}")


def masking_key_of(conn_id: str) -> MaskingKey:
    """Return the key of masking rules that a connection of any type has as its password.

    :raises ConfigurationError: Airflow finds no connection with that id; it has no password, or a short one.
    """
    from airflow_pgbackup.backup.masking import MaskingKey

    try:
        return MaskingKey(_secret(conn_id, "Store the key there, such as that of openssl rand -hex 32.").encode())
    except AirflowNotFoundException:
        raise no_connection(conn_id, "Create it with the masking key as its password.") from None


def _secret(conn_id: str, hint: str) -> str:
    text = BaseHook.get_connection(conn_id).password
    if not text:
        raise ConfigurationError(f"connection {conn_id} has no password", hint=hint)
    for line in (text, *text.splitlines()):
        mask_secret(line)
    return text
