"""Managed PostgreSQL services: recognize the service, and list what its users cannot dump there.

On such a service nobody is a superuser. The service has databases that only it may enter, roles of its own, and
extensions that no other server has. A dump leaves these out by name instead of failing on them.

Recognition needs two marks of a service, since anybody can create a role with one of these names. Sources:

* Amazon RDS and Aurora: "Understanding PostgreSQL roles and permissions" (``rds_superuser``, database ``rdsadmin``),
  "Aurora PostgreSQL functions" (``aurora_version``).
* Cloud SQL and AlloyDB: "About PostgreSQL users and roles" (``cloudsqlsuperuser``, ``cloudsqladmin``).
* Azure Database for PostgreSQL: "Server concepts" (``azure_maintenance``, ``azure_sys``, ``azure_pg_admin``).
* Aiven, which Akamai sells too, and DigitalOcean: lists of databases in their guides (``_aiven``, ``_dodb``), and the
  first role of their users (``avnadmin``, ``akmadmin``, ``doadmin``).
* Supabase: "Postgres roles" (``supabase_admin``, ``authenticator``). Neon: "Manage roles" (``neon_superuser``).

The services themselves were not available for tests: ``tests/integration/backup/test_managed_service.py`` gives a real
PostgreSQL their marks and restrictions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_MARKS: LiteralString = """
select 'role ' || rolname from pg_catalog.pg_roles where rolname = any (%(roles)s)
union all
select 'database ' || datname from pg_catalog.pg_database where datname = any (%(databases)s)
union all
select 'function ' || name from pg_catalog.unnest(%(functions)s::text[]) name
 where pg_catalog.to_regproc('pg_catalog.' || name) is not null
union all
select distinct 'setting ' || name from pg_catalog.unnest(%(settings)s::text[]) name
 where pg_catalog.current_setting(name, true) is not null
"""


@dataclass(frozen=True)
class ManagedService:
    """A managed PostgreSQL service.

    :param name: ``Amazon RDS for PostgreSQL``.
    :param marks: by which it is recognized, ``role rds_superuser``; two of them are enough.
    :param required: a mark without which it is another service.
    :param databases: the service's own databases, which hold nothing of its users.
    :param roles: the service's own roles.
    :param extensions: those that other servers cannot create.
    """

    name: str
    marks: frozenset[str]
    required: str | None
    databases: tuple[str, ...]
    roles: tuple[str, ...]
    extensions: tuple[str, ...]

    def only_there(self, installed: Collection[str]) -> list[str]:
        """Return the extensions among `installed` that no other server can create, sorted."""
        return sorted(set(self.extensions) & set(installed))


def _service(
    name: str,
    *,
    databases: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    extensions: tuple[str, ...],
    functions: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    required: str | None = None,
    admins: tuple[str, ...] = (),
) -> ManagedService:
    """Return a service with the marks by which it is known.

    :param admins: roles that the service creates for its users, who own what these own.
    """
    marks = {
        *(f"role {each}" for each in admins),
        *(f"role {each}" for each in roles),
        *(f"database {each}" for each in databases),
        *(f"function {each}" for each in functions),
        *(f"setting {each}" for each in settings),
    }
    return ManagedService(name, frozenset(marks), required, databases, roles, extensions)


_RDS_ROLES = ("rdsadmin", "rds_superuser", "rds_password", "rds_replication", "rds_iam", "rds_ad", "rdstopmgr")
_RDS_EXTENSIONS = ("aws_commons", "aws_lambda", "aws_s3", "rds_tools", "rds_activity_stream", "flow_control")
_GOOGLE_EXTENSIONS = ("google_columnar_engine", "google_db_advisor", "google_ml_integration", "google_insights")

SERVICES = (
    _service(
        "Amazon Aurora PostgreSQL",
        databases=("rdsadmin",),
        roles=_RDS_ROLES,
        extensions=(*_RDS_EXTENSIONS, "apg_plan_mgmt", "aurora_stat_utils", "aws_ml"),
        functions=("aurora_version",),
        settings=("rds.extensions",),
        required="function aurora_version",
    ),
    _service(
        "Amazon RDS for PostgreSQL",
        databases=("rdsadmin",),
        roles=_RDS_ROLES,
        extensions=_RDS_EXTENSIONS,
        settings=("rds.extensions",),
    ),
    _service(
        "Google AlloyDB for PostgreSQL",
        databases=("alloydbadmin", "alloydbmetadata"),
        roles=("alloydbsuperuser", "alloydbadmin", "alloydbagent", "alloydbiamuser", "alloydbreplica"),
        extensions=(*_GOOGLE_EXTENSIONS, "alloydb_scann", "alloydb_ai_nl"),
    ),
    _service(
        "Google Cloud SQL for PostgreSQL",
        databases=("cloudsqladmin",),
        roles=("cloudsqladmin", "cloudsqlsuperuser", "cloudsqlagent", "cloudsqliamuser", "cloudsqlreplica"),
        extensions=_GOOGLE_EXTENSIONS,
    ),
    _service(
        "Azure Database for PostgreSQL",
        databases=("azure_maintenance", "azure_sys"),
        roles=("azuresu", "azure_pg_admin", "azure_superuser"),
        extensions=("azure", "azure_ai", "azure_storage", "azure_local_ai", "pgaadauth", "pg_qs", "pgms_stats"),
        settings=("azure.extensions",),
    ),
    _service(
        "DigitalOcean Managed PostgreSQL",
        databases=("_dodb",),
        extensions=("aiven_extras",),
        admins=("doadmin",),
    ),
    _service(
        "Aiven for PostgreSQL",
        databases=("_aiven",),
        extensions=("aiven_extras",),
        admins=("avnadmin", "akmadmin"),
    ),
    _service(
        "Supabase",
        roles=(
            *("supabase_admin", "supabase_auth_admin", "supabase_storage_admin", "supabase_replication_admin"),
            *("supabase_read_only_user", "authenticator", "dashboard_user", "pgbouncer"),
        ),
        extensions=("supabase_vault", "pgsodium", "pg_graphql", "wrappers"),
        required="role supabase_admin",
    ),
    _service(
        "Neon",
        roles=("neon_superuser", "cloud_admin", "neon_service"),
        extensions=("neon", "neon_utils"),
        settings=("neon.timeline_id", "neon.tenant_id"),
    ),
)
"""The services that are recognized; the more specific one of two stands first."""

_ENOUGH_MARKS = 2


def recognize_service(session: psycopg.Connection[Any]) -> ManagedService | None:
    """Return the managed service that a session is connected to; None for a server without the marks of one.

    :raises psycopg.Error: the query failed.
    """
    found = {str(mark) for (mark,) in session.execute(_MARKS, _by_kind())}
    for service in SERVICES:
        if len(service.marks & found) >= _ENOUGH_MARKS and (service.required is None or service.required in found):
            return service
    return None


def _by_kind() -> Mapping[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for mark in sorted(set().union(*(service.marks for service in SERVICES))):
        kind, _, name = mark.partition(" ")
        kinds.setdefault(f"{kind}s", []).append(name)
    return kinds
