"""Why an object differs after a restore although nothing is wrong: what a dump by pg_dump does not carry.

PostgreSQL's own test of upgrades knows the first of these, see ``adjust_regress_dumpfile`` in
``src/test/perl/PostgreSQL/Test/AdjustDump.pm``.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.campaign.database_facts import FactDifference, Facts

Reason = Callable[[FactDifference, Facts, Facts], bool]


def _lines(text: str) -> list[str]:
    return sorted(line.strip().removesuffix(",") for line in text.splitlines())


def _order_of_columns(found: FactDifference, before: Facts, after: Facts) -> bool:
    if (found.kind, found.what) == ("column positions", "columns"):
        return sorted(found.before.strip("{}").split(",")) == sorted(found.after.strip("{}").split(","))
    return found.what == "definition" and _lines(found.before) == _lines(found.after) and "TABLE" in found.kind


def _dropped_columns(found: FactDifference, before: Facts, after: Facts) -> bool:
    return (found.kind, found.what, found.after) == ("column positions", "dropped", "0")


def _refilled(found: FactDifference, before: Facts, after: Facts) -> bool:
    """Return whether it is a materialized view, whose rows pg_dump does not dump."""
    return found.kind == "rows" and before.relation_kind(found.name) == "m"


def _shell_operator(found: FactDifference, before: Facts, after: Facts) -> bool:
    return found.kind == "shell operator" and found.after == "0"


def _in_system_family(found: FactDifference, before: Facts, after: Facts) -> bool:
    kinds = ("operator of access method", "function of access method")
    return found.kind in kinds and " of pg_catalog." in found.name and found.after == "0"


def _flag_of_origin(found: FactDifference, before: Facts, after: Facts) -> bool:
    return found.kind == "constraint" and found.what in ("local", "no_inherit", "inherited")


def _derived_constraint(found: FactDifference, before: Facts, after: Facts) -> bool:
    """Return whether it is a constraint that its table has from another table, under a name chosen by the server."""
    if found.kind == "table constraint":
        name, _, table = found.name.partition(" on ")
        key = ("constraint", f"{table}: {name}")
    elif found.kind == "constraint" and found.what == "definition":
        key = (found.kind, found.name)
    else:
        return False
    rows = [facts.catalogs[key] for facts in (before, after) if key in facts.catalogs]
    return any(row["derived"] or row["inherited"] or not row["local"] for row in rows)


def _marked(found: FactDifference, before: Facts, after: Facts) -> bool:
    """Return whether it is the comment by which a retry sees that the restore is complete."""
    of_database = found.kind == "database" or (found.kind == "COMMENT" and found.name.startswith("DATABASE "))
    return of_database and not found.before.strip("None") and found.after.count("airflow-pgbackup: {") == 1


REASONS: dict[str, Reason] = {
    "database: a restore that can be tried again leaves a mark in the comment": _marked,
    "columns: pg_dump creates the columns of a child in the order of its parents": _order_of_columns,
    "columns: dropped columns leave a gap in the catalog, which a dump does not carry": _dropped_columns,
    "rows: a materialized view is filled anew by its query, from what the tables hold now": _refilled,
    "operators: pg_dump skips operators that exist only as the negator or commutator of another": _shell_operator,
    "operators: pg_dump skips what was added to PostgreSQL's own operator families": _in_system_family,
    "constraints: whether a child had a constraint before it was attached is not in its definition": _flag_of_origin,
    "constraints: the server names constraints that a table has from its parents or partitions": _derived_constraint,
}


def reason_of(found: FactDifference, before: Facts, after: Facts) -> str | None:
    """Return why this differs, or None if it must not."""
    return next((reason for reason, holds in REASONS.items() if holds(found, before, after)), None)
