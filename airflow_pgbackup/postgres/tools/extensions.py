"""Which extensions the server programs of a folder could create."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from airflow_pgbackup.errors import ToolError
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import run_tool

# Seen from bin: built from source and in most packages; the wheel's; Debian's, whose bin is
# /usr/lib/postgresql/18/bin and whose share is /usr/share/postgresql/18.
_SHARE = ("../share", "../share/postgresql", "../../../../share/postgresql/{major}")


_DEFAULT_VERSION = re.compile(r"^\s*default_version\s*=\s*'([^']*)'", re.MULTILINE)


def installed_extensions(client: Client) -> dict[str, str]:
    """The extensions that lie beside these programs, each with the version that CREATE EXTENSION makes, or ''."""
    folders = [client.bin_dir / place.format(major=client.major) for place in _SHARE]
    if client.has("pg_config"):
        with contextlib.suppress(ToolError):  # it is broken: the usual places are left
            told = run_tool([client.tool("pg_config"), "--sharedir"], env={"LC_ALL": "C"}, deadline=30)
            folders.append(Path(told.decode(errors="surrogateescape").strip()))
    return {
        # vector--0.8.0.control is a version's own control file, not an extension's
        path.stem: _default_version(path)
        for folder in folders
        for path in (folder / "extension").glob("*.control")
        if "--" not in path.stem
    }


def _default_version(control: Path) -> str:
    with contextlib.suppress(OSError):
        if match := _DEFAULT_VERSION.search(control.read_text(errors="replace")):
            return match[1]
    return ""
