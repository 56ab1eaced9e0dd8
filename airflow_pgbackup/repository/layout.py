"""The keys of a repository: the names and places of its files.

.. code-block:: text

    repository.json                             format version and UUID of the repository
    <server>/<database>/                        a series; for pg_dumpall @cluster, @globals, @roles, @tablespaces
        20261122T020000Z-3f9ac1/                a backup
            7d41c09e/                           the attempt that made it
                dvdrental_2026-11-22_0200.dump  its artifact: a file, or a directory
            manifest.json                       written last: the commit point; names the attempt
            verification-20261122T021500.123456Z-archive-pass.json
    <server>/@sets/                             not a series: what one run made of the databases of a server
        20261122T020000Z-3f9ac1/                a backup set
            set-20261122T023000.123456Z-complete.json  see set_layout

Two attempts at one backup (a task that Airflow took for dead, and its retry; two uploads of the same backup) write into
separate folders, so that neither can damage the other's files. There is only one manifest, which names the attempt that
counts.

Keys are ``/``-joined relative paths of encoded segments. The functions are pure: no file, no network. The module has
a little over 300 lines, to keep the names of backups in one place.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from urllib.parse import quote, unquote

from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.text import did_you_mean

REPOSITORY_FILE = "repository.json"
MANIFEST_FILE = "manifest.json"
SCOPES = ("globals", "roles", "tablespaces")
"""The parts of a cluster that pg_dumpall can dump alone; each is a series of its own."""
_FOLDERS: dict[str | None, str] = {None: "@cluster", **{scope: f"@{scope}" for scope in SCOPES}}
SPECIAL_FOLDERS = {folder: scope for scope, folder in _FOLDERS.items()}
"""The folder names of pg_dumpall's series, with the scope of each; an encoded database name never begins with ``@``."""

LEVELS = ("integrity", "archive", "restore")
"""Verification levels, weakest first."""
RESULTS = ("pass", "fail", "notproven")

DEFAULT_ARTIFACT = "{database}_{date}_{time}"
EXTENSIONS = {"custom": ".dump", "tar": ".tar", "plain": ".sql", "directory": ".dir"}
COMPRESSION_EXTENSIONS = {"gzip": ".gz", "zstd": ".zst", "lz4": ".lz4", "bzip2": ".bz2", "xz": ".xz"}

# ext4, XFS, NFS and most others hold 255 bytes per name.
MAX_SEGMENT = 255

TEMP_PREFIX = ".pgbackup-tmp-"
"""The names of our temporary files and directories begin with this; listings leave them out."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{6}")
_ATTEMPT = re.compile("[0-9a-f]{8}")
_IN_BACKUP = re.compile(rf"(?:^|/){_ID.pattern}/")
_VERIFICATION = re.compile(
    rf"verification-([0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}}Z)-({'|'.join(LEVELS)})-({'|'.join(RESULTS)})\.json"
)


def check_level(level: str | None, name: str = "minimum_level", *, required: bool = False, none: str = "None") -> None:
    """Check that a verification level exists.

    :param name: the parameter or command-line option, for the error.
    :param required: whether None, no level, is invalid.
    :param none: how the caller writes None, for the hint.
    :raises ConfigurationError: there is no such level.
    """
    if level in LEVELS or (level is None and not required):
        return
    choices = ", ".join(LEVELS) + ("" if required else f", or {none}")
    raise ConfigurationError(f"invalid {name} {level!r}", hint=did_you_mean(level, LEVELS, f"Choose one of {choices}."))


def reaches(level: object, minimum: str) -> bool:
    """Return whether a level, of a reference for example, is at least another one; None is below all."""
    return level in LEVELS and LEVELS.index(str(level)) >= LEVELS.index(minimum)


def encode_segment(name: str) -> str:
    """Return a server or database name as one segment of a key: percent-encoded UTF-8 but for ``A-Za-z0-9-_.~``.

    A leading ``.`` is encoded too, so that no name becomes ``..`` or a hidden file; and so is ``@``, so that a database
    named ``@cluster`` is not taken for the cluster.

    :raises ConfigurationError: for an empty name, one with a null byte, or one that takes more than 255 bytes.
    """
    try:
        segment = _encode(name)
    except UnicodeEncodeError:  # a lone surrogate, from bytes on a command line that are not UTF-8
        raise ConfigurationError(f"the name {name!r} is not valid unicode") from None
    if not segment:
        raise ConfigurationError("a server or database name is empty")
    if "\0" in name:
        raise ConfigurationError(
            f"the name {name[:40]!r} contains a null byte, which PostgreSQL does not allow in names"
        )
    if len(segment) > MAX_SEGMENT:
        raise ConfigurationError(
            f"the name {name[:40]!r}… takes {len(segment)} bytes as a directory name, more than {MAX_SEGMENT}",
            hint="Use a shorter server name.",
        )
    return segment


def decode_segment(segment: str) -> str:
    """Return the name that a segment encodes.

    :raises ValueError: :func:`encode_segment` does not make such a segment: the folder is foreign.
    """
    name = unquote(segment)
    if not name or "\0" in name or len(segment) > MAX_SEGMENT or _encode(name) != segment:
        raise ValueError(f"not an encoded name: {segment!r}")
    return name


@dataclass(frozen=True, order=True, slots=True)
class Series:
    """All backups of one database of a server, or (``database=None``) of one scope of pg_dumpall.

    :param scope: of a pg_dumpall, one of :data:`SCOPES`; None for the complete cluster.
    """

    server: str
    database: str | None
    scope: str | None = None

    @property
    def kind(self) -> str:
        """``database``, ``cluster``, ``globals``, ``roles`` or ``tablespaces``."""
        return (self.scope or "cluster") if self.database is None else "database"

    @property
    def path(self) -> str:
        """Its folder in the repository, two encoded segments."""
        folder = _FOLDERS[self.scope] if self.database is None else encode_segment(self.database)
        return f"{encode_segment(self.server)}/{folder}"

    @classmethod
    def parse(cls, path: str) -> Series:
        """Return the series of a folder.

        :raises ValueError: the folder is not that of a series.
        """
        server, _, database = path.partition("/")
        if database in SPECIAL_FOLDERS:
            return cls(decode_segment(server), None, SPECIAL_FOLDERS[database])
        return cls(decode_segment(server), decode_segment(database))

    def __str__(self) -> str:
        return f"{self.server}/{_FOLDERS[self.scope] if self.database is None else self.database}"


def backup_id(started_at: datetime, seed: str | None = None) -> str:
    """Return a backup id, ``20261122T020000Z-3f9ac1``: the UTC start time, and a suffix.

    :param started_at: aware.
    :param seed: the requester (dag, task, run, map index), so that a retry finds what an earlier attempt committed:
        the same seed gives the same suffix (:func:`id_suffix`). None for a random suffix.
    """
    return f"{utc(started_at):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3) if seed is None else id_suffix(seed)}"


def id_suffix(seed: str) -> str:
    """Return the six hex digits that the ids of all attempts of one run share."""
    return hashlib.sha256(seed.encode(errors="surrogatepass")).hexdigest()[:6]


def parse_backup_id(name: str) -> datetime | None:
    """Return the start time in a backup id, aware UTC; None for a folder that is not a backup's."""
    match = _ID.fullmatch(name)
    return parse_time(match[1]) if match else None


def artifact_name(
    template: str,
    *,
    database: str | None,
    server: str,
    started_at: datetime,
    format: str,
    compression: str | None = None,
    scope: str | None = None,
    encrypted: bool = False,
) -> str:
    """Return the file name of an artifact: ``dvdrental_2026-11-22_0200.dump``.

    :param template: may hold ``{database}``, ``{server}``, ``{date}`` (2026-11-22) and ``{time}`` (0200), both UTC.
        The extension is added.
    :param database: None for a pg_dumpall: then ``{database}`` is its scope, or ``cluster``.
    :param format: ``custom``, ``tar``, ``plain`` or ``directory``.
    :param compression: the method of the compression around a script, which adds ``.gz`` or ``.zst``. The name does
        not show compression inside an archive.
    :param scope: of a pg_dumpall, see :class:`Series`.
    :param encrypted: adds ``.age``.
    :raises OptionError: the template has an unknown placeholder, or its result cannot be a file name.
    """
    at = utc(started_at)
    values = {
        "database": scope or "cluster" if database is None else encode_segment(database),
        "server": encode_segment(server),
        "date": f"{at:%Y-%m-%d}",
        "time": f"{at:%H%M}",
    }
    hint = "Use {database}, {server}, {date} and {time}, as in '{database}_{date}_{time}'."
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(f"the artifact template {template!r} cannot be read: {error}", hint=hint) from None
    name = ""
    for literal, field, spec, conversion in parsed:
        # No attribute, index, format or conversion: a template may come from a dag run's parameters.
        if field is not None and (field not in values or spec or conversion):
            raise OptionError(f"the artifact template {template!r} holds an unknown placeholder", hint=hint)
        name += literal + (values[field] if field is not None else "")
    name += EXTENSIONS[format] + (COMPRESSION_EXTENSIONS[compression] if compression else "")
    name += ".age" if encrypted else ""
    # The extension keeps it apart from our own files, which all end in .json.
    if re.search(r"[/\\]", name) or not name.isprintable() or name.startswith("."):
        raise OptionError(f"the artifact template {template!r} gives {name!r}, which cannot be used as a file name")
    if len(name.encode()) > MAX_SEGMENT:
        raise OptionError(
            f"the artifact template {template!r} gives a name of {len(name.encode())} bytes, at most 255 are possible"
        )
    return name


def backup_folder(series: Series, backup: str) -> str:
    return f"{series.path}/{backup}"


def manifest_key(series: Series, backup: str) -> str:
    return f"{backup_folder(series, backup)}/{MANIFEST_FILE}"


def artifact_key(series: Series, backup: str, artifact: str, attempt: str | None = None) -> str:
    """Return the key of an artifact.

    :param attempt: None for a backup of format version 1.0, whose artifact lies beside the manifest.
    """
    return f"{backup_folder(series, backup)}/{f'{attempt}/' if attempt else ''}{artifact}"


def new_attempt() -> str:
    """Return a new name for the folder of an attempt."""
    return secrets.token_hex(4)


def attempt_of(path: str) -> str | None:
    """Return the attempt that wrote a path in a backup's folder; None for a path that belongs to none."""
    name, slash, _ = path.partition("/")
    return name if slash and _ATTEMPT.fullmatch(name) else None


def is_ours(path: str) -> bool:
    """Return whether this package may have written a path into a backup's folder, so that a sweep removes it.

    False for all that somebody has put into a directory there, such as the folder of another backup. A file beside the
    manifest may be the artifact of a backup of format version 1.0, whatever its name is.
    """
    name, slash, _ = path.partition("/")
    if not slash:
        return True
    return (_ATTEMPT.fullmatch(name) is not None or name.endswith((".dir", ".dir.age"))) and not _IN_BACKUP.search(path)


@dataclass(frozen=True, order=True, slots=True)
class VerificationName:
    """The name of a verification file, which shows the result, so that a listing suffices."""

    at: datetime
    level: str
    result: str

    @property
    def file(self) -> str:
        return f"verification-{utc(self.at):%Y%m%dT%H%M%S.%fZ}-{self.level}-{self.result}.json"

    @classmethod
    def parse(cls, name: str) -> VerificationName | None:
        match = _VERIFICATION.fullmatch(name)
        at = parse_time(match[1]) if match else None
        return cls(at, sys.intern(match[2]), sys.intern(match[3])) if match and at else None


def verification_key(series: Series, backup: str, *, at: datetime, level: str, result: str) -> str:
    return f"{backup_folder(series, backup)}/{VerificationName(at, level, result).file}"


_series = lru_cache(maxsize=4096)(Series.parse)  # one object for the thousands of backups of a series


def split_key(key: str) -> tuple[Series, str, str] | None:
    """Return series, backup id and path in the backup's folder of a key; None for a key outside of such a folder."""
    segments = key.split("/", 3)
    if len(segments) < 4 or not segments[3] or parse_backup_id(segments[2]) is None:
        return None
    try:
        return _series(f"{segments[0]}/{segments[1]}"), segments[2], segments[3]
    except ValueError:
        return None


def check_key(key: str) -> str:
    """Return a key after checking it.

    :raises ConfigurationError: for an empty segment (``//``), ``.``, ``..``, a control character, a name of our
        temporary files, a segment longer than a file system's 255 bytes, or what is not valid unicode.
    """
    if _CONTROL.search(key):
        raise ConfigurationError(f"not a key: {key!r} holds a control character")
    try:
        segments = key.encode(errors="surrogateescape").split(b"/")
    except UnicodeEncodeError:  # a lone surrogate that no byte of a file name becomes; JSON can hold it
        raise ConfigurationError(f"not a key: {key!r} is not valid unicode") from None
    for segment in segments:
        if segment in (b"", b".", b"..") or segment.startswith(TEMP_PREFIX.encode()):
            raise ConfigurationError(f"not a key: {key!r}")
        if len(segment) > MAX_SEGMENT:
            raise ConfigurationError(f"a name in {key!r} is longer than {MAX_SEGMENT} bytes")
    return key


def is_key(key: str) -> bool:
    """Return whether a name in a store is a key: listings leave others out."""
    try:
        check_key(key)
    except ConfigurationError:
        return False
    return True


def _encode(name: str) -> str:
    segment = quote(name, safe="")
    return "%2E" + segment[1:] if segment.startswith(".") else segment


def utc(moment: datetime) -> datetime:
    """Return a time in UTC.

    :raises ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment.astimezone(timezone.utc)


def parse_time(text: str) -> datetime | None:
    """Return the time of ``20261122T021500Z``, or with microseconds. By hand: strptime would take half of a listing."""
    date = int(text[0:4]), int(text[4:6]), int(text[6:8])
    time = int(text[9:11]), int(text[11:13]), int(text[13:15]), int(text[16:22] or 0)
    try:
        return datetime(*date, *time, tzinfo=timezone.utc)
    except ValueError:  # 20261399T…: a foreign folder with a similar name
        return None
