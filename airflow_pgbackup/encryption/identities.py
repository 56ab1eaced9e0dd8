"""The secret keys that decrypt artifacts."""

from __future__ import annotations

import os
import re
import stat
import textwrap
from pathlib import Path
from typing import Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.secret_files import is_open_to_others

_LARGEST = 1 << 20
_HINT = "Give a file as age-keygen writes it (AGE-SECRET-KEY-1…), or an SSH private key without a passphrase."
# One may follow another without a space: a password field of a browser removes line breaks.
_OF_AGE = re.compile(r"AGE-SECRET-KEY-1(?:(?!AGE-SECRET-KEY-1)\w)*")
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)


class Identities:
    """Secret keys of age, which are never shown.

    :ivar keys: for pyrage.
    """

    def __init__(self, keys: tuple[Any, ...] = ()) -> None:
        self.keys = keys

    def __bool__(self) -> bool:
        return bool(self.keys)

    def __repr__(self) -> str:
        return f"<{len(self.keys)} identities>"

    @classmethod
    def parse(cls, text: str, what: str) -> Identities:
        """Return the identities in a text.

        :param text: keys ``AGE-SECRET-KEY-1…``, with comments, as age-keygen writes them, and SSH private keys in PEM
            form, without a passphrase; with line breaks or without.
        :param what: names the source of the text in errors, which never quote the text.
        :raises ConfigurationError: there is none, or one cannot be read.
        """
        import pyrage

        pems = list(_PEM.finditer(text))
        try:
            keys = [pyrage.x25519.Identity.from_str(key) for key in secrets_of_age(text)]
            keys += [pyrage.ssh.Identity.from_buffer(_with_line_breaks(pem[1], pem[2])) for pem in pems]
        except (pyrage.IdentityError, ValueError):
            raise ConfigurationError(f"{what} holds an identity that age cannot read", hint=_HINT) from None
        if not keys or len(pems) < text.count("-----BEGIN "):
            raise ConfigurationError(f"{what} holds no identity that age can read", hint=_HINT)
        return cls(tuple(keys))

    @classmethod
    def read(cls, path: str | Path) -> Identities:
        """Return the identities in a file.

        :raises ConfigurationError: it cannot be read, others may read or write it, or :meth:`parse` refuses it.
        """
        try:
            # Not blocking: a named pipe would wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ConfigurationError(f"cannot read the identity file {path}: {error.strerror}", hint=_HINT) from None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"the identity file {path} is not a regular file", hint=_HINT)
            if is_open_to_others(found):
                raise ConfigurationError(
                    f"others may read or write the identity file {path} (mode {stat.S_IMODE(found.st_mode):04o})",
                    hint="Run chmod 600 on it.",
                )
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ConfigurationError(f"the identity file {path} is larger than {_LARGEST} bytes", hint=_HINT)
        return cls.parse(data.decode("utf-8", "replace"), f"the identity file {path}")


def secrets_of_age(text: str) -> list[str]:
    """Return the secret keys of age in a text, whole or damaged."""
    return _OF_AGE.findall(text)


def _with_line_breaks(label: str, body: str) -> bytes:
    if ":" not in body:  # no headers
        body = "\n".join(textwrap.wrap("".join(body.split()), 64))
    return f"-----BEGIN {label}-----\n{body.strip()}\n-----END {label}-----\n".encode()
