"""The options of an adopted dump, which its manifest does not have, as far as the dump shows them."""

from __future__ import annotations

from dataclasses import replace

from airflow_pgbackup.backup.rehearsal.definitions import Definitions
from airflow_pgbackup.repository.manifest import Manifest


def with_found_options(manifest: Manifest, definitions: Definitions) -> Manifest:
    """Return the manifest of an adopted dump with the options that its definitions show; any other manifest as it is.

    Without them, the dump of the copy is written in another way, and a sound dump seems to differ.
    """
    if "adopted_from" not in manifest.origin:
        return manifest
    style = definitions.style
    found = {
        "quote_all_identifiers": style.quotes_every_name,
        "disable_dollar_quoting": style.quoted_bodies,
        # An extension brings its own comment.
        "no_comments": not style.comments,
    }
    if definitions.script:
        found |= {
            "clean": style.drops,
            "if_exists": style.drops and style.if_exists,
            "no_owner": not style.owners and not definitions.as_owners,
            "use_set_session_authorization": definitions.as_owners,
        }
    return replace(manifest, options={**manifest.options, **{name: True for name, is_so in found.items() if is_so}})
