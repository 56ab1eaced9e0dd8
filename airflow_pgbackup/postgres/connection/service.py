"""Connection service files (libpq, "The Connection Service File"): reading as libpq does, and writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.keywords import variables

# Where libpq looks if PGSYSCONFDIR is not set: in Debian's build, Red Hat's build, and built from source.
_SYSTEM_DIRECTORIES = ("/etc/postgresql-common", "/etc", "/usr/local/pgsql/etc")
_LONGEST_LINE = 1022  # bytes; libpq's buffer holds no more


def read_service(name: str, *, environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the keywords of a service from the first file that defines it.

    :raises ConfigurationError: no file defines it, or a file cannot be read; the message names the files.
    """
    searched = []
    for path in _files(environ, home):
        searched.append(path)
        found = _read_file(path, name)
        if found is not None:
            return found
    raise ConfigurationError(
        f"no definition of service {name!r} in {', '.join(map(str, searched))}",
        hint="Define it there, or set PGSERVICEFILE for this worker.",
    )


def write_service(path: Path, name: str, keywords: Mapping[str, str]) -> None:
    """Write a new file of mode 0600 with one service.

    :raises ConfigurationError: a line of the file cannot hold one of the values.
    """
    lines = [f"[{name}]"]
    for keyword, value in keywords.items():
        line = f"{keyword}={value}"
        if line != line.rstrip() or "\n" in line or "\r" in line or len(line.encode()) > _LONGEST_LINE:
            raise ConfigurationError(
                f"connection option {keyword!r} cannot be given to PostgreSQL's tools",
                hint="Give a single line under 1,000 characters without trailing white space.",
            )
        lines.append(line)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _files(environ: Mapping[str, str], home: Path) -> Iterable[Path]:
    # libpq refuses a PGSERVICEFILE that does not exist; here the service is then not found, which is an error too.
    yield Path(environ["PGSERVICEFILE"]) if environ.get("PGSERVICEFILE") else home / ".pg_service.conf"
    directories = [environ["PGSYSCONFDIR"]] if environ.get("PGSYSCONFDIR") else _SYSTEM_DIRECTORIES
    for directory in directories:
        yield Path(directory, "pg_service.conf")


def _read_file(path: Path, name: str) -> dict[str, str] | None:
    """Return None if the file does not exist or has no such section (parseServiceFile in libpq's fe-connect.c)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the service file {path}: {error}") from error
    found: dict[str, str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r\f\v")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            if line.startswith(f"[{name}]"):
                found = {}
        elif found is not None:
            keyword, equals, value = line.partition("=")
            if keyword == "service":
                raise ConfigurationError(f"service {name!r} in {path} refers to another service, line {number}")
            if not equals or keyword not in variables():
                raise ConfigurationError(
                    f"syntax error in service file {path}, line {number}",
                    hint="Write each line as keyword=value, without spaces around the =.",
                )
            found.setdefault(keyword, value)
    return found
