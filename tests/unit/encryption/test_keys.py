"""Recipients and identities as people give them; a secret is never shown."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.recipients import MOST, Recipients
from airflow_pgbackup.encryption.streams import encrypt
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.secret_files import is_open_to_others
from airflow_pgbackup.settings import load

OWNER = pyrage.x25519.Identity.generate()
PUBLIC, SECRET = str(OWNER.to_public()), str(OWNER)


def test_recipients_without_comments_and_doubles() -> None:
    found = Recipients.parse([f" {PUBLIC}\n", PUBLIC, "", f"{PUBLIC} # Ann"])
    assert found is not None
    assert found.texts == (PUBLIC,)
    assert Recipients.parse([]) is None


@pytest.mark.parametrize(
    "text", ["{0},{1}", "\n{0}\n    {1}\n", "# both\r\n{0} # Ann\r\n{1}\r\n"], ids=["commas", "lines", "comments"]
)
def test_recipients_in_one_text(text: str) -> None:
    given = (PUBLIC, ssh_keys()[0])
    for texts in (given, given[::-1]):
        found = Recipients.parse([text.format(*texts)])
        assert found is not None
        assert found.texts == texts


def test_a_recipient_is_not_taken_for_a_comment() -> None:
    ssh = ssh_keys()[0]
    for text in (f"{PUBLIC} {ssh}", f"{ssh} {PUBLIC}", f"{ssh} ann {ssh}", f"{PUBLIC} # {PUBLIC}", f"{PUBLIC} x"):
        with pytest.raises(ConfigurationError, match="something other than a comment follows the recipient"):
            Recipients.parse([text])
    with pytest.raises(ConfigurationError) as caught:
        Recipients.parse([f"{ssh} {SECRET}"])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", [" ", ",", " , "])
def test_a_blank_setting_does_not_turn_encryption_off(text: str) -> None:
    with pytest.raises(ConfigurationError, match="recipients is empty"):
        Recipients.parse(load(environ={"PGBACKUP_RECIPIENTS": text}).recipients)


def test_recipients_in_several_lines_of_a_setting() -> None:
    second = str(pyrage.x25519.Identity.generate().to_public())
    found = Recipients.parse(load(environ={"PGBACKUP_RECIPIENTS": f"\n{PUBLIC}\n{second}"}).recipients)
    assert found is not None
    assert found.texts == (PUBLIC, second)


@pytest.mark.parametrize("texts", [[""], ["", " "], [","], ["# a comment"]])
def test_blank_recipients_do_not_mean_no_encryption(texts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="recipients is empty"):
        Recipients.parse(texts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age1xyz", "'age1xyz' is not a public key of age"),
        ("ssh-ed25519 AAAA", "'ssh-ed25519 AAAA' is not a public key"),
        ("ssh-dss AAAA", "is not a public key"),
        ("x" * 10_000, "x…' is not a public key"),
        ("age1\x1b[31m", r"is not a public key"),
    ],
    ids=["age", "ssh", "dss", "long", "escape"],
)
def test_what_is_no_public_key(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Recipients.parse([PUBLIC, text])
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_secret_key_among_recipients_is_not_shown() -> None:
    for text in (SECRET, SECRET.lower()):
        with pytest.raises(ConfigurationError, match="a secret key was given as a recipient") as caught:
            Recipients.parse([text])
        assert text not in str(caught.value)


def test_too_many_recipients() -> None:
    keys = [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(MOST + 1)]
    with pytest.raises(ConfigurationError, match=f"{MOST + 1} recipients given, at most {MOST} allowed"):
        Recipients.parse(keys)


def ssh_keys() -> tuple[str, str]:
    """A public and a private key, as ssh-keygen writes them."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(), private


def test_ssh_keys() -> None:
    public, private = ssh_keys()
    for comment in ("ann@example.org", "ssh-key-2026-11-29", "Ann's key"):
        found = Recipients.parse([f"{public} {comment}"])
        assert found is not None
        assert found.texts == (public,)
    stored = io.BytesIO()
    encrypt(io.BytesIO(b"x"), stored, found)
    assert pyrage.decrypt(stored.getvalue(), list(Identities.parse(private, "the key").keys)) == b"x"


def test_an_identity_file_as_age_keygen_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    path.write_text(f"# created: 2026-11-27T00:00:00Z\n# public key: {PUBLIC}\n{SECRET}\n")
    path.chmod(0o600)
    found = Identities.read(path)
    assert pyrage.decrypt(pyrage.encrypt(b"x", [OWNER.to_public()]), list(found.keys)) == b"x"
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (SECRET, 0o644, r"others may read or write the identity file .* \(mode 0644\)"),
        (SECRET, 0o620, r"others may read or write"),
        ("", 0o600, "holds no identity"),
        (f"{SECRET}x", 0o600, "an identity that age cannot read"),
        (PUBLIC, 0o600, "no identity that age can read"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", 0o600, "an identity that"),
        (f"{SECRET}\n-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", 0o600, "no identity that age can read"),
        ("#" * (1 << 21), 0o600, "is larger than"),
    ],
    ids=["read by others", "written by others", "empty", "damaged", "public", "no PEM", "cut PEM", "large"],
)
def test_an_identity_file_that_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    path = tmp_path / "key.txt"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Identities.read(path)
    assert not text or text not in str(caught.value)


def test_no_file_and_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the identity file"):
        Identities.read(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        Identities.read(tmp_path / "pipe")


@pytest.mark.parametrize("join", ["", " ", "\n"], ids=["one line", "spaces", "lines"])
def test_identities_whose_line_breaks_a_browser_has_removed(join: str) -> None:
    other = pyrage.x25519.Identity.generate()
    (first, first_pem), (second, second_pem) = ssh_keys(), ssh_keys()
    rsa_key = rsa.generate_private_key(65537, 2048)
    pem = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    public = rsa_key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    lines = [
        f"# created: 2026-11-27T00:00:00Z\n# public key: {PUBLIC}\n{SECRET}",
        str(other),
        first_pem,
        second_pem,
        pem,
    ]
    text = join.join(join.join(lines).splitlines())
    keys = list(Identities.parse(text, "the key").keys)
    recipients = Recipients.parse([PUBLIC, str(other.to_public()), first, second, public])
    assert recipients is not None
    assert len(keys) == len(recipients.keys)
    for recipient in recipients.keys:
        assert pyrage.decrypt(pyrage.encrypt(b"x", [recipient]), keys) == b"x"


@pytest.mark.parametrize(
    ("owner", "mode", "open"),
    [
        (0, 0o440, False),
        (0, 0o640, False),
        (0, 0o444, True),
        (0, 0o660, True),
        (50000, 0o440, True),
        (50000, 0o400, False),
    ],
)
def test_the_group_may_read_a_file_of_root(owner: int, mode: int, open: bool) -> None:
    """As that of a Kubernetes Secret with fsGroup, which nobody can change."""
    assert is_open_to_others(os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 9, 0, 0, 0))) is open
