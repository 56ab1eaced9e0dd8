"""Which extensions are installed beside a server's programs."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from airflow_pgbackup.errors import ToolError
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.postgres.tools.shared_libraries import library_path

# Relative to bin: built from source and in most packages; in the wheel; in Debian's packages, with bin in
# /usr/lib/postgresql/18/bin and share in /usr/share/postgresql/18.
_SHARE = ("../share", "../share/postgresql", "../../../../share/postgresql/{major}")


_DEFAULT_VERSION = re.compile(r"^\s*default_version\s*=\s*'([^']*)'", re.MULTILINE)


def installed_extensions(client: Client) -> dict[str, str]:
    """Return the extensions beside these programs, with the default version of each, or ''."""
    directories = [client.bin_dir / place.format(major=client.major) for place in _SHARE]
    if client.has("pg_config"):
        with contextlib.suppress(ToolError):  # pg_config is broken: only the usual places are searched
            output = run_tool(
                [client.tool("pg_config"), "--sharedir"], env={"LC_ALL": "C", **library_path()}, deadline=30
            )
            directories.append(Path(output.decode(errors="surrogateescape").strip()))
    return {
        # vector--0.8.0.control belongs to one version of an extension
        path.stem: _default_version(path)
        for directory in directories
        for path in (directory / "extension").glob("*.control")
        if "--" not in path.stem
    }


def _default_version(control: Path) -> str:
    with contextlib.suppress(OSError):
        if match := _DEFAULT_VERSION.search(control.read_text(errors="replace")):
            return match[1]
    return ""
