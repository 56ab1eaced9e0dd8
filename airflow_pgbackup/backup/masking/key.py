"""The key that makes masks deterministic: with it, the mask of any guessed value can be computed."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.secret_files import is_open_to_others
from airflow_pgbackup.wording import setting

SHORTEST = 16
"""Bytes of a key at least."""
_LONGEST = 4096
_NEW_KEY = "Make one with: (umask 077; openssl rand -hex 32 > masking.key)"


class MaskingKey:
    """A secret. Equal keys give equal masks, from refresh to refresh.

    :param secret: the key's bytes, at least 16; white space around them is ignored.
    :raises ConfigurationError: too short or too long.
    """

    def __init__(self, secret: bytes) -> None:
        secret = secret.strip()
        if not SHORTEST <= len(secret) <= _LONGEST:
            raise ConfigurationError(
                f"the masking key has {len(secret)} bytes, expected {SHORTEST} to {_LONGEST}", hint=f"{_NEW_KEY}."
            )
        self._secret = secret

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> MaskingKey:
        """Return the key in a file that only its owner can read, and a group if the owner is root.

        :raises ConfigurationError: no file, or others can read it.
        """
        try:
            with Path(path).open("rb") as file:
                found = os.fstat(file.fileno())
                secret = file.read(_LONGEST + 100)
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the masking key {path}: {os.strerror(error.errno or 0)}",
                hint=f"{_NEW_KEY}, and name it with {setting('masking_key_file')}.",
            ) from None
        if not stat.S_ISREG(found.st_mode) or is_open_to_others(found):
            raise ConfigurationError(
                f"the masking key {path} has mode {found.st_mode & 0o777:04o}: others can read it",
                hint=f"Run chmod 600 {path}.",
            )
        return cls(secret)

    def __repr__(self) -> str:
        return "<MaskingKey>"

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes for one purpose, from which neither the key nor those of others can be computed."""
        return hmac.new(self._secret, f"airflow-pgbackup masking {purpose}".encode(), hashlib.sha256).digest()

    def number(self, purpose: str) -> int:
        """Return a signed number of 64 bits for one purpose."""
        return int.from_bytes(self.derive(purpose)[:8], "big", signed=True)
