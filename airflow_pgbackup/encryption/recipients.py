"""The public keys to which artifacts are encrypted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.text import printable
from airflow_pgbackup.wording import parameter

MOST = 64
"""Recipients of one artifact. Each adds a stanza to the header of each file, which every reader must try."""
_SHOWN = 40
_HINT = (
    "Give public keys: age1… as age-keygen prints them, or an SSH public key (ssh-ed25519 … or ssh-rsa …). "
    "Several are separated by commas or newlines."
)


class Recipients:
    """Public keys of age.

    :ivar texts: each in the form of age, an SSH key without its comment.
    """

    def __init__(self, texts: tuple[str, ...], keys: tuple[Any, ...]) -> None:
        self.texts = texts
        self.keys = keys

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Recipients | None:
        """Return the recipients; None if `texts` is empty, which means that nothing is encrypted.

        :param texts: each has keys separated by commas or newlines: ``age1…``, ``ssh-ed25519 AAAA…`` or
            ``ssh-rsa AAAA…``. A comment may follow a key, after ``#`` if it is not an SSH key; blank ones are ignored.
        :raises ConfigurationError: one is not a public key, all are blank, or there are more than :data:`MOST`.
        """
        parsed: dict[str, Any] = {}
        given = list(texts)
        for part in (part for text in given for part in re.split(r"[,\r\n]", text)):
            words = part.split()
            if not words or words[0].startswith("#"):
                continue
            of_ssh = words[0].startswith("ssh-")
            name, comment = " ".join(words[: 1 + of_ssh]), words[1 + of_ssh :]
            parsed[name] = _key(name)
            if any(map(_looks_like_a_key, comment)) or (comment and not of_ssh and not comment[0].startswith("#")):
                raise ConfigurationError(f"something other than a comment follows the recipient {name}", hint=_HINT)
        if len(parsed) > MOST:
            raise ConfigurationError(f"{len(parsed)} recipients given, at most {MOST} allowed", hint=_HINT)
        if given and not parsed:
            raise ConfigurationError(f"{parameter('recipients')} is empty", hint=_HINT)
        return cls(tuple(parsed), tuple(parsed.values())) if parsed else None


def _looks_like_a_key(word: str) -> bool:
    # Not all of "ssh-": ssh-key-2026-11-29 is a comment of Oracle's cloud.
    return word.startswith(("age1", "ssh-ed25519", "ssh-rsa")) or "SECRET-KEY" in word.upper()


def _key(text: str) -> Any:
    import pyrage

    if "SECRET-KEY" in text.upper():  # not shown: it is a secret
        raise ConfigurationError(
            "a secret key was given as a recipient",
            hint="Give its public key (age-keygen -y prints it), and replace the key: it may be in logs now.",
        )
    try:
        if text.startswith("ssh-"):
            return pyrage.ssh.Recipient.from_str(text)
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        shown = printable(text[:_SHOWN] + "…" * (len(text) > _SHOWN))
        raise ConfigurationError(f"the recipient {shown!r} is not a public key of age", hint=_HINT) from None
