"""Open a repository by its URI."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.cancellation import CancelFlag
from airflow_pgbackup.repository.layout import check_key
from airflow_pgbackup.repository.local.repository import LocalRepository
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.wording import store

_FORMS = "Write file:///absolute/directory or s3://bucket/prefix."


def open_repository(
    uri: str,
    *,
    s3: S3Options | None = None,
    cancel: CancelFlag | None = None,
    client_of: Repository | None = None,
) -> Repository:
    """Return the repository at a URI. Nothing is opened yet: if the repository is missing, its first use fails.

    :param s3: how to reach an ``s3://`` repository; None: boto3's default credentials.
    :param cancel: checked while the repository is listed and, in S3, read.
    :param client_of: another ``s3://`` repository, whose boto3 client this one uses instead of making its own.
    :raises ConfigurationError: not an absolute ``file://`` directory or an ``s3://`` bucket and prefix.
    """
    scheme, bucket, path = parse_uri(uri)
    if scheme == "file":
        return LocalRepository(Path("/") / path, cancel=cancel)
    from airflow_pgbackup.repository.s3.repository import S3Repository  # boto3 takes 0.2 s to import

    return S3Repository(bucket, path, s3 or S3Options(), cancel=cancel, client_of=client_of)


def parse_uri(uri: str) -> tuple[str, str, str]:
    """Return the scheme of a repository's URI, ``file`` or ``s3``; its bucket; and its directory or prefix.

    :raises ConfigurationError: not an absolute ``file://`` directory or an ``s3://`` bucket and prefix.
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if not separator:
        hint = f"Write file://{uri}." if uri.startswith("/") else _FORMS
        raise ConfigurationError(f"not a repository's URI: {uri!r}", hint=hint)
    authority, _, path = rest.partition("/")
    if "@" in authority or (":" in authority and "@" in path):  # the second: a secret key with a slash
        # The message does not quote the URI, which holds a secret.
        raise ConfigurationError("the repository's URI holds credentials", hint=f"Set {store('credentials')}.")
    if scheme in ("s3a", "s3n"):
        raise ConfigurationError(f"not a repository's URI: {uri!r}", hint=f"Write s3://{rest}.")
    if scheme not in ("file", "s3"):
        raise ConfigurationError(f"unsupported scheme {scheme}:// in the repository's URI", hint=_FORMS)
    if re.search(r"[?#\x00-\x1f\x7f]", uri):
        raise ConfigurationError(
            f"the repository's URI holds a '?', '#' or control character: {uri!r}",
            hint="A URI has no options. In a directory's name, write %3F for '?' and %23 for '#'.",
        )
    if scheme == "file":
        if authority not in ("", "localhost"):
            path = f"{authority}/{path}"
            if path.startswith("~"):
                path = os.path.expanduser(path).lstrip("/")  # noqa: PTH111  pathlib's raises without a home
            raise ConfigurationError(
                f"a file:// URI with the host {authority!r}: {uri!r}",
                hint=f"For a directory of this machine, write three slashes: file:///{path}.",
            )
        return scheme, "", _checked(uri, unquote(path))
    if authority.startswith("arn:"):
        raise ConfigurationError(
            f"the repository's URI holds an ARN: {uri!r}",
            hint="Write the alias of the access point, which ends with -s3alias, as the bucket.",
        )
    if ":" in authority:
        raise ConfigurationError(
            f"the repository's URI holds a port: {uri!r}",
            hint=f"Set {store('endpoint_url')}.",
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", authority):
        raise ConfigurationError(f"invalid bucket name {authority!r} in {uri!r}", hint=_FORMS)
    return scheme, authority, _checked(uri, path) if path.rstrip("/") else ""


def _checked(uri: str, path: str) -> str:
    try:
        return check_key(path.removesuffix("/"))
    except ConfigurationError:
        raise ConfigurationError(
            f"the repository's URI has an empty, '.' or '..' segment: {uri!r}", hint=_FORMS
        ) from None
