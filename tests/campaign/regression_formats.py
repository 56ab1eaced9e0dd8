"""PostgreSQL's regression database in every format: dumped, verified at each level, and restored."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyrage

from airflow_pgbackup.backup.reference import load_evidence, load_manifest
from airflow_pgbackup.backup.restore import restore
from airflow_pgbackup.backup.restore.target import RestoreTarget
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.postgres.options import RestoreOptions
from tests.campaign.database_facts import FactDifference
from tests.campaign.regression_run import Campaign, Explains, Reference

FORMATS: dict[str, dict[str, Any]] = {
    "custom, zstd by us": {},
    "custom, gzip": {"compress": "gzip:1"},
    "custom, lz4": {"compress": "lz4"},
    "custom, none": {"compress": "none"},
    "directory": {"format": "directory"},
    "directory, gzip, 2 jobs": {"format": "directory", "jobs": 2, "compress": "gzip"},
    "tar": {"format": "tar"},
    "plain": {"format": "plain"},
    "plain, zstd": {"format": "plain", "compress": "zstd"},
    "plain, gzip": {"format": "plain", "compress": "gzip"},
    "plain, INSERT": {"format": "plain", "inserts": True},
    "custom, column INSERT": {"column_inserts": True, "rows_per_insert": 100},
    "plain, all names quoted": {"format": "plain", "quote_all_identifiers": True},
    "plain, functions in quotes": {"format": "plain", "disable_dollar_quoting": True},
    "custom, through partition roots": {"load_via_partition_root": True},
    "plain, without owners": {"format": "plain", "no_owner": True, "no_privileges": True},
    "custom, statistics": {"statistics": True},
}
ENCRYPTED = {
    "custom, encrypted": {},
    "directory, encrypted": {"format": "directory"},
    "plain, encrypted": {"format": "plain"},
}


def dump_and_verify(campaign: Campaign) -> dict[str, Reference]:
    """Dump in each format, verify at each level, and list the size and the seconds of each."""
    references: dict[str, Reference] = {}
    identity = pyrage.x25519.Identity.generate()
    settings = replace(campaign.context.settings, recipients=(str(identity.to_public()),))
    encrypted = replace(campaign.context, settings=settings, identities=Identities((identity,)))
    for name, options in [*FORMATS.items(), *ENCRYPTED.items()]:
        needs = 18 if "statistics" in options else 16 if options.get("compress") == "lz4" else 0
        if not campaign.only.search(name) or campaign.server.major < needs:
            continue
        context = encrypted if name in ENCRYPTED else campaign.context
        seconds: list[object] = []
        with campaign.case(f"dump: {name}"):
            started = time.monotonic()
            references[name] = campaign.dump(context, **options)
            seconds.append(round(time.monotonic() - started, 1))
        if name not in references:
            continue
        for level in ("integrity", "archive", "restore"):
            with campaign.case(f"verify at {level}: {name}"):
                started = time.monotonic()
                references[name] = verify(
                    reference=references[name], repository=campaign.repository, level=level, context=context
                )
                seconds.append(round(time.monotonic() - started, 1))
        evidence = load_evidence(campaign.repository, references[name])
        rehearsed = next((v for v in evidence.verifications if v.level == "restore"), None)
        size = load_manifest(campaign.repository, references[name]).artifact.size
        row: list[object] = [name, round(size / 1024**2, 1), *seconds]
        if rehearsed:
            row += [
                rehearsed.result,
                "; ".join(str(c.detail).partition(";")[0] for c in rehearsed.checks if "job" in str(c.detail)),
            ]
        campaign.formats.append(row)
        with campaign.case(f"restore as a new database: {name}"):
            restore(
                reference=references[name],
                repository=campaign.repository,
                target=RestoreTarget(connection=campaign.server.params.with_database("restored"), mode="create"),
                options=RestoreOptions(),
                analyze=False,
                context=context,
            )
            campaign.compare(
                f"restore as a new database: {name}",
                campaign.server.params.with_database("restored"),
                _reasons_of(options),
            )
        campaign.drop("restored")
    return references


def _reasons_of(options: Mapping[str, Any]) -> dict[str, Explains]:
    reasons: dict[str, Explains] = {}
    if options.get("format") == "plain":
        reasons["database: only pg_dump --create writes its settings into a plain dump"] = of_database
    if options.get("inserts") or options.get("column_inserts"):
        reasons["rows: INSERT puts rows where a page has room, COPY in the order of the dump"] = _order_of_rows
    if options.get("no_owner"):
        reasons["owners and privileges: the dump was made without them"] = of_owners
    return reasons


def of_database(found: FactDifference) -> bool:
    return found.kind == "database"


def _order_of_rows(found: FactDifference) -> bool:
    return found.what == "order of rows"


def of_owners(found: FactDifference) -> bool:
    if found.what in ("owner", "acl") or found.kind in ("ACL", "DEFAULT ACL", "default acl"):
        return True
    bare = [re.sub(r"^owner .*$", "", text, flags=re.M) for text in (found.before, found.after)]
    return found.what == "definition" and bare[0] == bare[1]
