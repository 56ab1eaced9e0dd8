"""ICU locales in the form that pg_upgrade takes over from older versions; CREATE writes language tags (BCP 47)."""

from __future__ import annotations

import pytest

from airflow_pgbackup.postgres.definitions.objects import Key, compare_objects

KEY: Key = ("app", "COLLATION", "public", "german")
COLLATION = "CREATE COLLATION public.german (provider = icu, locale = '{}');"
LOOSE = "CREATE COLLATION public.german (provider = icu, deterministic = false, locale = '{}');"
DATABASE = "CREATE DATABASE app WITH LOCALE_PROVIDER = icu LOCALE = 'de_DE.UTF-8' ICU_LOCALE = '{}';"
LIBC = "CREATE COLLATION public.german (provider = libc, locale = '{}');"


@pytest.mark.parametrize(
    ("text", "dumped", "restored", "same"),
    [
        (COLLATION, "de@collation=phonebook", "de-u-co-phonebk", True),
        (LOOSE, "de_DE", "de-DE", True),
        (DATABASE, "en_US", "en-US", True),
        (COLLATION, "de-u-co-phonebk", "de-DE", False),
        (LIBC, "de_DE", "en_US", False),
        (DATABASE.replace("de_DE", "{}").replace("'{}'", "'en_US'"), "de_DE", "en_US", False),
    ],
)
def test_the_old_form_is_the_same_locale(text: str, dumped: str, restored: str, same: bool) -> None:
    archived, copy = ({KEY: (text.format(locale),)} for locale in (dumped, restored))
    assert (list(compare_objects(archived, copy, definitions=True)) == []) is same
