"""Check the keys of encryption: recipients that parse, more than one of them, an identity that decrypts."""

from __future__ import annotations

import io

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.findings import Findings
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.encryption.streams import decrypt, encrypt
from airflow_pgbackup.errors import ConfigurationError, NotProven

_GUIDE = "See the guide Encryption."


def check_keys(context: RunContext, findings: Findings) -> None:
    """Check the recipients and the identities of the settings. Nothing is written."""
    try:
        recipients = Recipients.parse(context.settings.recipients)
    except ConfigurationError as error:
        findings.add_error("recipients", error, _GUIDE)
        return
    if recipients is None:
        return
    if len(recipients.texts) == 1:
        findings.warning(
            "single_recipient",
            "backups are encrypted to a single recipient, so if its secret key is lost, all of them are lost",
            "Add a second recipient whose secret key is kept elsewhere, such as on paper in a safe.",
        )
    try:
        identities = context.require_identities()
    except ConfigurationError as error:
        findings.add_error("identity", error, _GUIDE)
        return
    except NotProven as error:  # a worker that only dumps needs no identity
        findings.warning("identity", f"the identity was not checked: {error.message}", error.hint or _GUIDE)
        return
    if not identities:
        return
    stored = io.BytesIO()
    encrypt(io.BytesIO(b"check"), stored, recipients)
    try:
        decrypt(io.BytesIO(stored.getvalue()), io.BytesIO(), identities, "a new backup")
    except NotProven:
        findings.error(
            "identity",
            "the identity matches no recipient, so that new backups cannot be verified or restored with it",
            "Add its public key to the recipients, or give the identity of one of them.",
        )
