"""A restore that makes the grants of other roles runs nothing else as them, whatever the dump says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from builds import BUILDS, Build, each
from psql_scripts import cluster_dump
from restoring import local, restored

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.databases.sessions import Session, session
from airflow_pgbackup.backup.restore.grantors import make_grant
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.definitions.passed_on import PassedOnGrant, rewritten_grant
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

AS_WEAK, AS_POSTGRES = b"SET SESSION AUTHORIZATION weak;\n", b"SET SESSION AUTHORIZATION postgres;\n"
OBJECTS = b"CREATE ROLE weak;\nCREATE TABLESPACE fast OWNER postgres LOCATION '';\n"
OPTION = b"GRANT CREATE ON TABLESPACE fast TO weak WITH GRANT OPTION;\n"
GRANT = b"GRANT CREATE ON TABLESPACE fast TO attacker;\n"
END = b"RESET SESSION AUTHORIZATION;\n"
OTHER = b"CREATE ROLE made;\n"
"""A weak role may not run it."""

FORGED: dict[str, tuple[bytes, str | None]] = {
    "other statements first": (AS_WEAK + OTHER + GRANT + END, "postgres"),
    "other statements after it": (AS_WEAK + GRANT + OTHER + END, "postgres"),
    "no end": (AS_WEAK + GRANT + OTHER, "postgres"),
    "no grant": (AS_WEAK + END + OTHER, None),
    "neither": (AS_WEAK + OTHER, None),
    "twice": (AS_WEAK + AS_WEAK + GRANT + END + OTHER, "weak"),
    "a superuser first": (AS_POSTGRES + AS_WEAK + GRANT + END + OTHER, "weak"),
    "a superuser last": (AS_WEAK + AS_POSTGRES + GRANT + END + OTHER, "postgres"),
    "no such role": (b"SET SESSION AUTHORIZATION nobody_here;\n" + GRANT + END + OTHER, "postgres"),
    "a forged role": (
        b'SET SESSION AUTHORIZATION "weak""; ALTER ROLE weak SUPERUSER; --";\n' + GRANT + END + OTHER,
        "postgres",
    ),
    "a role that is a keyword": (b"SET SESSION AUTHORIZATION session_user;\n" + GRANT + END + OTHER, "postgres"),
    "a true one": (AS_WEAK + GRANT + END + OTHER, "weak"),
}
ACL = """
select pg_get_userbyid(grantor) from pg_tablespace, aclexplode(spcacl)
 where spcname = 'fast' and pg_get_userbyid(grantee) = 'attacker'
"""


@pytest.fixture
def server(build: Build) -> Iterator[PostgresServer]:
    with PostgresServer(build.bin_dir, superuser="postgres") as server:
        with server.params.connect() as connection:
            connection.execute("alter system set allow_in_place_tablespaces = on")
            connection.execute("select pg_reload_conf()")
        yield server


def restore_globals(server: PostgresServer, build: Build, tmp_path: Path, statements: bytes) -> list[str]:
    """Restore a cluster that somebody planted, and return the warnings."""
    repository = local(tmp_path / "repository")
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "dump.sql").write_bytes(cluster_dump(build.major, roles=OBJECTS + OPTION + statements))
    result = adopt(repository=repository, sources=[directory], server="test")
    (reference,) = result["adopted"]  # type: ignore[misc]
    return restored(reference, repository, server.params, settings=build.settings)["warnings"]  # type: ignore[no-any-return]


@each(BUILDS[-1:])
@pytest.mark.parametrize("case", FORGED)
def test_forged_statements_in_a_script(case: str, build: Build, server: PostgresServer, tmp_path: Path) -> None:
    """The restore succeeds, so no weak role ran the other statements; and the grant is the expected role's."""
    statements, grantor = FORGED[case]
    warnings = restore_globals(server, build, tmp_path, statements)
    with server.params.connect() as connection:
        assert [row[0] for row in connection.execute(ACL)] == ([grantor] if grantor else [])
        query = "select rolname from pg_roles where rolsuper or rolname in ('weak', 'made') order by 1"
        superusers = "select count(*) from pg_roles where rolsuper"
        made = ["made", "postgres", "weak"]
        assert [row[0] for row in connection.execute(query)] == made
        assert connection.execute(superusers).fetchone() == (1,)
    lost = [line for line in warnings if "is not the grantor of" in line]
    assert len(lost) == (case in ("a superuser last", "no such role", "a forged role", "a role that is a keyword"))


@each(BUILDS[-1:])
def test_a_forged_grantee(build: Build, server: PostgresServer, tmp_path: Path) -> None:
    forged = b'GRANT CREATE ON TABLESPACE fast TO "attacker""; ALTER ROLE weak SUPERUSER; --";\n'
    with pytest.raises(RestoreError, match='role "attacker"; ALTER ROLE weak SUPERUSER; --" does not exist'):
        restore_globals(server, build, tmp_path, AS_WEAK + forged + END)
    with server.params.connect() as connection:
        assert connection.execute("select rolsuper from pg_roles where rolname = 'weak'").fetchone() == (False,)


# -- the session


WHO = "select session_user, current_user, current_setting('is_superuser')"
CASES = {
    "granted": ("holder", "attacker", "holder"),
    "no option": ("weak", "attacker", "postgres"),
    "no such role": ("nobody_here", "attacker", "postgres"),
    "superuser": ("chief", "attacker", "postgres"),
    "no such grantee": ("holder", "nobody_here", None),
}
GRANTORS = """
select distinct pg_get_userbyid(grantor) from pg_parameter_acl, aclexplode(paracl)
 where pg_get_userbyid(grantee) = 'attacker'
"""


@pytest.mark.every_value
@each([build for build in BUILDS if build.major in (15, 17, 18)])
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
def test_the_session_is_the_users_again(build: Build, within: bool) -> None:
    """After every grant, also one that failed."""
    with PostgresServer(build.bin_dir, superuser="postgres") as server, session(server.params) as connection:
        for statement in (
            *("create role attacker", "create role holder", "create role weak", "create role chief superuser"),
            "grant set, alter system on parameter work_mem to holder with grant option",
            "grant set on parameter work_mem to weak",
        ):
            connection.execute(statement)  # type: ignore[call-overload]
        for case, (role, grantee, grantor) in CASES.items():
            outer = connection.transaction(force_rollback=True) if within else nullcontext()
            with outer:
                assert grant(connection, role, grantee) == (grantor is not None), case
                assert connection.execute(WHO).fetchone() == ("postgres", "postgres", "on"), case
                found = [row[0] for row in connection.execute(GRANTORS)]
                assert found == ([grantor] if grantor else []), case
            assert connection.execute(WHO).fetchone() == ("postgres", "postgres", "on"), case
            for user in ("holder", "postgres"):
                connection.execute(f"set session authorization {user}")  # type: ignore[call-overload]
                connection.execute("revoke all on parameter work_mem from attacker")
            connection.execute("reset session authorization")


def grant(connection: Session, role: str, grantee: str) -> bool:
    """Make a grant, and return whether it succeeded."""
    text = rewritten_grant(f"GRANT ALL ON PARAMETER work_mem TO {grantee};")
    in_transaction = connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    try:
        with connection.transaction() if in_transaction else nullcontext():
            make_grant(connection, PassedOnGrant(role, text), lambda line: None)
    except psycopg.errors.UndefinedObject:
        return False
    return True
