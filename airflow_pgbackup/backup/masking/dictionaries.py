"""The words that fakes are made of, by Faker."""

from __future__ import annotations

import codecs
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faker import Faker

SIZE = 512
"""Words of a dictionary: a power of two, as a word is chosen by bits of a hash."""
_LONGEST = 63
"""Bytes: words have the type ``name``, whose fixed size makes the n-th element of an array cheap to find."""
_ATTEMPTS = 4 * SIZE

_WORDS: dict[str, Callable[[Faker], Any]] = {
    "first_name": lambda fake: fake.first_name(),
    "last_name": lambda fake: fake.last_name(),
    "street": lambda fake: fake.street_address(),
    "city": lambda fake: fake.city(),
    "postcode": lambda fake: fake.postcode(),
    "state": lambda fake: fake.state(),  # of some locales
    "state_code": lambda fake: fake.state_abbr(),
    "country": lambda fake: fake.country(),
    "country_code": lambda fake: fake.country_code(),
    "company": lambda fake: fake.company(),
    "job": lambda fake: fake.job(),
    "sentence": lambda fake: fake.sentence(nb_words=6, variable_nb_words=True),
}
# For addresses of mail, logins: ASCII, and short.
_MAIL_NAME = re.compile(r"[a-z]{2,10}")


def make_words(kind: str, locales: Sequence[str], seed: int, encoding: str) -> list[str]:
    """Return :data:`SIZE` words of a kind, the same for the same arguments.

    Where a locale has few of them, they repeat. Where Faker has none in a locale, they are those of ``en_US``.

    :param kind: a key of :data:`_WORDS`, or ``mail_name``.
    :param seed: chooses them, and their order.
    :param encoding: of the database, as PostgreSQL names it; words that it cannot hold are left out.
    """
    found = _distinct(_fakes(kind, locales, seed, encoding)) or _distinct(_fakes(kind, ["en_US"], seed, encoding))
    shuffled = random.Random(seed)  # noqa: S311  the seed is the secret
    shuffled.shuffle(found)
    return [found[number % len(found)] for number in range(SIZE)]


def _distinct(words: Iterable[str]) -> list[str]:
    """Return the first :data:`SIZE` that differ; Faker makes no more than these take."""
    found: dict[str, None] = {}
    for word in words:
        found[word] = None
        if len(found) == SIZE:
            break
    return list(found)


def _fakes(kind: str, locales: Sequence[str], seed: int, encoding: str) -> Iterable[str]:
    from faker import Faker  # takes its time to load

    fits = _fits(encoding)
    for number, locale in enumerate(locales):
        fake = Faker(locale)
        fake.seed_instance(seed + number)
        make = _WORDS["first_name" if kind == "mail_name" else kind]
        for _ in range(_ATTEMPTS // len(locales)):
            try:
                word = " ".join(str(make(fake)).split())
            except AttributeError:  # this locale has no such provider
                break
            if kind == "mail_name":
                word = word.lower()
                if not _MAIL_NAME.fullmatch(word):
                    continue
            if word and fits(word):
                yield word


def _fits(encoding: str) -> Callable[[str], bool]:
    name = {"UTF8": "utf-8", "SQL_ASCII": "ascii"}.get(encoding, encoding)
    if name.startswith("WIN"):
        name = "cp" + name[3:]
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        codec = "ascii"

    def fits(word: str) -> bool:
        try:
            return len(word.encode(codec)) <= _LONGEST and len(word.encode()) <= _LONGEST
        except UnicodeEncodeError:
            return False

    return fits
