"""The user that a throwaway server runs as: PostgreSQL refuses root, and a uid without a name."""

from __future__ import annotations

import functools
import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from airflow_pgbackup.errors import NotProven

NOBODY = 65534


def as_plain_user(bin_dir: Path, directory: Path, own: Sequence[Path]) -> list[str]:
    """Return the command to put before a server program: nothing for a plain user with a name, otherwise one that
    enters a user namespace, in which root has another uid. If the machine allows no user namespace, root's server runs
    as the user ``nobody``.

    :param bin_dir: the directory of the program.
    :param directory: the server's private directory, which is made searchable if the user ``nobody`` runs the server.
    :param own: the paths that belong to the server's user.
    :raises NotProven: neither way works.
    """
    uid = os.geteuid()
    if uid != 0 and has_name(uid):
        return []
    if namespace := _user_namespace():
        return namespace
    if uid == 0:
        return as_nobody(bin_dir, directory, own)
    raise NotProven(
        f"PostgreSQL does not run as a user without a name: uid {uid} has no entry in the user database",
        hint="Add an entry for this uid to /etc/passwd, or allow unprivileged user namespaces.",
    )


def as_nobody(bin_dir: Path, directory: Path, own: Sequence[Path]) -> list[str]:
    """Return what to put before a server program so that root runs it as nobody; parameters of :func:`as_plain_user`.

    :raises NotProven: the user ``nobody`` cannot run the program, and the machine allows no user namespace.
    """
    drop = drop_privileges(NOBODY, NOBODY)
    try:
        subprocess.run([*drop, bin_dir / "initdb", "--version"], capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        if namespace := _user_namespace():
            return namespace
        raise NotProven(
            f"PostgreSQL does not run as root; neither nobody nor a user namespace can run {bin_dir}/initdb",
            hint="Run as a plain user, or install PostgreSQL where every user can read it.",
        ) from None
    directory.chmod(0o711)
    for path in own:
        os.chown(path, NOBODY, NOBODY)
    return drop


def drop_privileges(uid: int, gid: int) -> list[str]:
    """Return the command of setpriv(1) that runs a program as this user, without capabilities and any way to gain them.

    The kernel clears the parent-death signal at a change of user, see PR_SET_PDEATHSIG in prctl(2), so it is set again.
    """
    return [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=KILL", "--"),
    ]


def has_name(uid: int) -> bool:
    """Return whether the user database has an entry for this uid."""
    try:
        return bool(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return False


@functools.cache
def _user_namespace() -> list[str]:
    """Return the command that makes a user namespace in which we have a named uid; [] where the machine forbids it."""
    uid = NOBODY if has_name(NOBODY) else max(entry.pw_uid for entry in pwd.getpwall())
    command = ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}", "--"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    return command
