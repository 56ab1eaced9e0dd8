"""Retention: the plan against a second, slow statement of the rules; the borders where calendars are odd."""

from __future__ import annotations

import dataclasses
import random
import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.catalogue import Backup
from airflow_pgbackup.repository.layout import LEVELS, Series
from airflow_pgbackup.repository.retention import Decision, Policy, plan
from airflow_pgbackup.repository.retention import counts as counts_at
from airflow_pgbackup.time_spans import parse_span
from tests.sampling import sample

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
APP = Series("prod", "app")


def backup(
    started_at: datetime,
    *,
    series: Series = APP,
    state: str = "verified",
    level: str | None = "archive",
    suffix: str = "000000",
    pinned: bool = False,
    locked: str | None = None,
    labels: tuple[str, ...] = (),
) -> Backup:
    return Backup(
        series=series,
        id=f"{started_at.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{suffix}",
        started_at=started_at,
        committed_at=started_at,
        size=1,
        state=state,
        level=level if state == "verified" else None,
        pinned=pinned,
        locked=locked,
        labels=labels,
    )


def nightly(days: int, **kwargs: object) -> list[Backup]:
    """One a night at 02:00 UTC, newest first."""
    return [backup(NOW.replace(hour=2) - timedelta(days=n), **kwargs) for n in range(days)]  # type: ignore[arg-type]


def kept(decisions: list[Decision]) -> list[str]:
    return [d.backup.id for d in decisions if d.keep]


def reasons(decisions: list[Decision], wanted: Backup) -> str:
    return "; ".join(next(d.reasons for d in decisions if d.backup == wanted))


# -- the rules, stated a second time: for each backup by itself, and slowly ---------------------------------------


def kept_by_brute_force(backups: list[Backup], policy: Policy, now: datetime) -> set[tuple[Series, str]]:
    zone = ZoneInfo(policy.time_zone)

    def age_order(b: Backup) -> tuple[datetime, str]:
        return b.started_at, b.id

    def good(b: Backup) -> bool:
        if policy.minimum_level is None:
            return b.state in ("verified", "written", "notproven")
        return b.level in LEVELS[LEVELS.index(policy.minimum_level) :]

    def tier(b: Backup) -> str:
        return "good" if good(b) else "bad" if b.state in ("failed", "incomplete") else "unproven"

    def names(b: Backup) -> dict[str, str]:
        local = b.started_at.astimezone(zone)
        year, week, _ = local.isocalendar()
        return {
            # The offset tells the two hours apart that one clock hour of autumn is.
            "keep_hourly": f"{local.date()} {local.hour} {local.fold}",
            "keep_daily": str(local.date()),
            "keep_weekly": f"{year} {week}",
            "keep_monthly": f"{local.year} {local.month}",
            "keep_yearly": str(local.year),
        }

    def by_rules(b: Backup, among: list[Backup]) -> bool:
        newer = [o for o in among if age_order(o) > age_order(b)]
        if len(newer) < policy.keep_last:
            return True
        if policy.keep_within and max(o.started_at for o in among) - b.started_at <= policy.keep_within:
            return True
        for rule in names(b):
            n = getattr(policy, rule)
            periods_newer = {names(o)[rule] for o in newer}
            if names(b)[rule] not in periods_newer and len(periods_newer) < n:
                return True
            oldest = all(age_order(o) >= age_order(b) for o in among)
            if oldest and len({names(o)[rule] for o in among}) < n:
                return True
        return False

    keep = set()
    for b in backups:
        past = [o for o in backups if o.series == b.series and o.started_at <= now]
        newer_good = [o for o in past if good(o) and age_order(o) > age_order(b)]
        among = {
            "good": [o for o in past if tier(o) == "good"],
            "unproven": [o for o in past if tier(o) != "bad"],
            "bad": past,
        }
        if (
            b.started_at > now
            or b.pinned
            or b.locked
            or any(label in b.labels for label in policy.keep_labels)
            or all(age_order(o) <= age_order(b) for o in past)
            or len(newer_good) < policy.keep_at_least
            or by_rules(b, among[tier(b)])
        ):
            keep.add((b.series, b.id))
    return keep


ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # its clocks went back at 00:01 until 2011: the same day began twice
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Asia/Kathmandu",
    "Pacific/Apia",  # had no 2011-12-30
    "America/Sao_Paulo",  # had days that began at 01:00
)
# Where two rounds of a clock, two days, years or ISO years meet.
ANCHORS = [
    datetime(2026, 10, 25, 0, 0, tzinfo=timezone.utc),
    datetime(2026, 3, 29, 0, 0, tzinfo=timezone.utc),
    datetime(2010, 11, 7, 2, 31, tzinfo=timezone.utc),
    datetime(2011, 12, 30, 10, 0, tzinfo=timezone.utc),
    datetime(2018, 11, 4, 3, 0, tzinfo=timezone.utc),
    datetime(2026, 4, 4, 15, 0, tzinfo=timezone.utc),
    datetime(2026, 12, 31, 23, 0, tzinfo=timezone.utc),
    datetime(2020, 2, 29, 12, 0, tzinfo=timezone.utc),
]
STATES = [
    *[("verified", level) for level in LEVELS],
    ("verified", "archive"),
    ("written", None),
    ("notproven", None),
    ("failed", None),
    ("incomplete", None),
]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Backup], datetime]:
    anchor = draw(st.sampled_from(ANCHORS))
    step = draw(st.sampled_from([10, 30, 60, 6 * 60, 24 * 60, 7 * 24 * 60, 31 * 24 * 60]))
    made = {}
    for _ in range(draw(st.integers(0, 14))):
        started_at = anchor + timedelta(minutes=draw(st.integers(-12, 12)) * step)
        state, level = draw(st.sampled_from(STATES))
        one = backup(
            started_at,
            series=draw(
                st.sampled_from(
                    [APP, Series("prod", "app_staging"), Series("prod", None), Series("prod", None, "roles")]
                )
            ),
            state=state,
            level=level,
            suffix=draw(st.sampled_from(["000000", "ffffff"])),  # two in one second
            pinned=draw(st.integers(0, 9)) == 0,
            locked="until 2030" if draw(st.integers(0, 9)) == 0 else None,
            labels=draw(st.sampled_from([(), (), ("release",), ("release", "old")])),
        )
        made[one.series, one.id] = one
    return list(made.values()), anchor + timedelta(minutes=draw(st.integers(0, 14)) * step)


counts = st.integers(0, 4)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    rules = {name: draw(counts) for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}
    within = draw(st.none() | st.integers(1, 60 * 24).map(lambda hours: timedelta(hours=hours)))
    if not any(rules.values()) and within is None:
        rules["last"] = 1
    return Policy(
        **{f"keep_{name}": n for name, n in rules.items()},
        keep_within=within,
        keep_at_least=draw(st.integers(1, 3)),
        keep_labels=draw(st.sampled_from([(), ("release",), ("other", "old")])),
        minimum_level=draw(st.sampled_from([None, *LEVELS])),
        time_zone=draw(st.sampled_from(ZONES)),
    )


@given(histories(), policies())
@settings(max_examples=len(sample(range(1500), 5)), deadline=None)
def test_the_plan_is_what_the_rules_say(history: tuple[list[Backup], datetime], policy: Policy) -> None:
    backups, now = history
    decisions = plan(backups, policy, now)
    assert {(d.backup.series, d.backup.id) for d in decisions if d.keep} == kept_by_brute_force(backups, policy, now)
    assert sorted(d.backup.id for d in decisions) == sorted(b.id for b in backups)
    assert all(d.reasons and all(d.reasons) for d in decisions)


@given(histories(), policies(), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_never_less_than_promised(
    history: tuple[list[Backup], datetime], policy: Policy, shuffler: random.Random
) -> None:
    backups, now = history
    decisions = plan(backups, policy, now)
    for series in {b.series for b in backups}:
        here = [d for d in decisions if d.backup.series == series]
        past = [d for d in here if d.backup.started_at <= now]
        if past:
            assert past[0].keep, "the newest"
        good = [d for d in past if policy.counts(d.backup)]
        assert sum(d.keep for d in good) >= min(policy.keep_at_least, len(good))
        if not good:
            assert all(d.keep for d in here), "nothing is deleted while nothing is proven"
    shuffled = list(backups)
    shuffler.shuffle(shuffled)
    assert plan(shuffled, policy, now) == decisions, "whatever order a listing has"
    # Deleting what was planned changes nothing for the rest: the next run, at the same time, deletes nothing more
    # that counts. (Fewer backups can only make a rule reach further back.)
    again = plan([d.backup for d in decisions if d.keep], policy, now)
    assert all(d.keep for d in again if policy.counts(d.backup))


# -- one by one ---------------------------------------------------------------------------------------------------


def test_daily_weekly_monthly() -> None:
    backups = nightly(400)
    decisions = plan(backups, Policy(keep_daily=7, keep_weekly=4, keep_monthly=12), NOW)
    days = [identifier[:8] for identifier in kept(decisions)]
    assert days[:7] == ["20261122", "20261121", "20261120", "20261119", "20261118", "20261117", "20261116"]
    # 22 November 2026 is a Sunday, so the last night of its ISO week; then the Sundays before.
    assert days[7:10] == ["20261115", "20261108", "20261101"]
    assert days[10:] == [
        *("20261031", "20260930", "20260831", "20260731", "20260630", "20260531"),
        *("20260430", "20260331", "20260228", "20260131", "20251231"),
    ]
    assert "daily 1/7 (2026-11-22)" in reasons(decisions, backups[0])
    assert "weekly 2/4 (2026-W46)" in reasons(decisions, backups[7])
    assert "monthly 2/12 (2026-10)" in reasons(decisions, backups[22])
    assert reasons(decisions, backups[10]) == "no rule keeps it"


def test_holes_use_up_nothing() -> None:
    backups = [nightly(40)[n] for n in (0, 9, 10, 30)]
    assert kept(plan(backups, Policy(keep_daily=3), NOW)) == [b.id for b in backups[:3]]


def test_the_oldest_stays_while_there_are_too_few() -> None:
    backups = nightly(20)
    decisions = plan(backups, Policy(keep_monthly=6), NOW)
    assert kept(decisions) == [backups[0].id, backups[19].id]
    assert reasons(decisions, backups[19]) == "kept until there are 6 monthlies"


def test_each_series_by_itself() -> None:
    app, staging = nightly(3), nightly(2, series=Series("prod", "app_staging"))
    cluster = nightly(1, series=Series("prod", None))
    named_like_it = nightly(1, series=Series("prod", "@cluster"))
    decisions = plan(app + staging + cluster + named_like_it, Policy(keep_last=1), NOW)
    assert [(str(d.backup.series), d.keep) for d in decisions if d.keep] == [
        ("prod/@cluster", True),
        ("prod/app", True),
        ("prod/app_staging", True),
        ("prod/@cluster", True),
    ]


def test_a_series_that_gets_no_new_backups_keeps_its_last_ones() -> None:
    backups = nightly(10)
    decisions = plan(backups, Policy(keep_within=timedelta(days=3)), NOW + timedelta(days=3650))
    assert kept(decisions) == [b.id for b in backups[:4]]
    assert "within 3 days of the newest" in reasons(decisions, backups[3])


def test_a_clock_that_was_ahead_takes_no_place() -> None:
    ahead = backup(NOW + timedelta(days=400))
    real = nightly(3)
    decisions = plan([ahead, *real], Policy(keep_last=1), NOW)
    assert kept(decisions) == [ahead.id, real[0].id]
    assert "future" in reasons(decisions, ahead)
    assert "newest backup" in reasons(decisions, real[0])


def test_of_one_second_the_higher_id_is_the_newer() -> None:
    at = NOW - timedelta(hours=1)
    decisions = plan([backup(at, suffix="0a0a0a"), backup(at, suffix="f0f0f0")], Policy(keep_last=1), NOW)
    assert [(d.backup.id[-6:], d.keep) for d in decisions] == [("f0f0f0", True), ("0a0a0a", False)]


@pytest.mark.parametrize("state", ["written", "notproven", "failed", "incomplete"])
def test_nothing_is_deleted_while_nothing_is_proven(state: str) -> None:
    backups = nightly(50, state=state)
    decisions = plan(backups, Policy(keep_last=1), NOW)
    assert all(d.keep for d in decisions)
    assert "too few newer verified backups" in reasons(decisions, backups[-1])


def test_unverified_backups_replace_none_and_go_when_verified_ones_are_newer() -> None:
    # Ten nights without a verification, then one good one, and another unverified.
    unproven, good = nightly(12, state="notproven"), nightly(12)
    backups = [unproven[0], good[1], *unproven[2:10], good[10], good[11]]
    decisions = plan(backups, Policy(keep_daily=3), NOW)
    assert kept(decisions) == [unproven[0].id, good[1].id, unproven[2].id, good[10].id, good[11].id]
    assert "too few newer verified backups" in reasons(decisions, unproven[0])
    assert reasons(decisions, unproven[2]) == "daily 3/3 (2026-11-20), not verified at archive"
    assert "not verified at archive, and there are newer verified backups" in reasons(decisions, unproven[3])


@pytest.mark.parametrize(
    ("state", "text"), [("failed", "failed verification"), ("incomplete", "incomplete")], ids=["failed", "incomplete"]
)
def test_a_failed_backup_does_not_push_out_an_unproven_one_of_the_same_day(state: str, text: str) -> None:
    good = nightly(2)
    failed = backup(good[1].started_at + timedelta(hours=5), state=state)
    unproven = backup(good[1].started_at + timedelta(hours=4), state="written")
    decisions = plan([good[0], failed, unproven], Policy(keep_daily=2), NOW)
    assert kept(decisions) == [good[0].id, failed.id, unproven.id]
    assert reasons(decisions, failed) == f"daily 2/2 (2026-11-21), {text}"
    assert reasons(decisions, unproven) == "daily 2/2 (2026-11-21), not verified at archive"


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(hours=24), "24 hours"),
        (timedelta(hours=25), "25 hours"),
        (timedelta(hours=48), "2 days"),
        (timedelta(days=30), "30 days"),
    ],
)
def test_a_span_is_in_days_where_it_is_some_whole_ones(span: timedelta, text: str) -> None:
    newest, before = nightly(2)
    decisions = plan([newest, before], Policy(keep_within=span), NOW)
    assert f"within {text} of the newest" in reasons(decisions, before)


def test_level_below_the_minimum_does_not_count() -> None:
    drills = [b if n % 7 else dataclasses.replace(b, level="restore") for n, b in enumerate(nightly(30))]
    policy = Policy(keep_daily=3, minimum_level="restore")
    # Three drilled ones, and the three last nights for as long as nobody has drilled them.
    assert [name[:8] for name in kept(plan(drills, policy, NOW))] == [
        *("20261122", "20261121", "20261120", "20261115", "20261108")
    ]


def test_pins_and_locks() -> None:
    backups = nightly(5)
    backups[3] = dataclasses.replace(backups[3], pinned=True)
    backups[4] = dataclasses.replace(backups[4], locked="until 2027-01-01")
    decisions = plan(backups, Policy(keep_last=1), NOW)
    assert kept(decisions) == [backups[0].id, backups[3].id, backups[4].id]
    assert reasons(decisions, backups[3]) == "pinned"
    assert reasons(decisions, backups[4]) == "locked until 2027-01-01"


def hourly(first: datetime, hours: int) -> list[Backup]:
    return [backup(first + timedelta(hours=n)) for n in range(hours)]


@pytest.mark.parametrize(
    ("zone", "first", "hours", "days"),
    [
        ("Europe/Berlin", "2026-10-24T22:00Z", 25, {"2026-10-25"}),  # the day of 25 hours
        ("Europe/Berlin", "2026-03-28T23:00Z", 23, {"2026-03-29"}),  # the day of 23
        ("America/New_York", "2026-11-01T04:00Z", 25, {"2026-11-01"}),
        ("Asia/Kathmandu", "2026-11-20T18:15Z", 24, {"2026-11-21"}),
        ("Pacific/Apia", "2011-12-29T10:00Z", 48, {"2011-12-29", "2011-12-31"}),  # and no 30th in between
    ],
)
def test_days_are_local_days(zone: str, first: str, hours: int, days: set[str]) -> None:
    backups = hourly(datetime.fromisoformat(first.replace("Z", "+00:00")), hours)
    policy = Policy(keep_daily=len(days), time_zone=zone)
    decisions = plan(backups, policy, NOW)
    assert len(kept(decisions)) == len(days)
    given = " ".join(r for d in decisions for r in d.reasons)
    assert all(f"({day})" in given for day in days)
    # One hour more on either side is another day.
    for edge in (-1, hours):
        one_more = [*backups, backup(backups[0].started_at + timedelta(hours=edge))]
        assert len(kept(plan(one_more, dataclasses.replace(policy, keep_daily=9), NOW))) >= len(days) + 1


def test_the_hour_that_a_clock_repeats_is_two_hours() -> None:
    backups = hourly(datetime(2026, 10, 24, 23, 30, tzinfo=timezone.utc), 4)  # 01:30, 02:30, 02:30, 03:30 in Berlin
    decisions = plan(backups, Policy(keep_hourly=4, time_zone="Europe/Berlin"), NOW)
    assert len(kept(decisions)) == 4
    assert "(2026-10-25 02:00+0200)" in reasons(decisions, backups[1])
    assert "(2026-10-25 02:00+0100)" in reasons(decisions, backups[2])


def test_a_day_that_begins_twice_is_one_day() -> None:
    # St. John's, 7 November 2010: at 00:01 the clocks went back to 23:01 of the 6th.
    moments = ["02:20", "02:30:30", "03:00", "03:30"]  # 6th 23:50; 7th 00:00:30; 6th 23:30 again; 7th 00:00 again
    backups = [backup(datetime.fromisoformat(f"2010-11-07T{m}+00:00")) for m in moments]
    decisions = plan(backups, Policy(keep_daily=4, time_zone="America/St_Johns"), NOW)
    # One for the 7th, one for the 6th, and the oldest because four were asked for.
    assert [b.id in kept(decisions) for b in backups] == [True, False, True, True]


def test_week_53_and_the_turn_of_the_iso_year() -> None:
    backups = [backup(datetime(2026, 12, 27, 2, tzinfo=timezone.utc) + timedelta(days=n)) for n in range(15)]
    decisions = plan(backups, Policy(keep_weekly=3), datetime(2027, 2, 1, tzinfo=timezone.utc))
    given = " ".join(r for d in decisions for r in d.reasons)
    assert "(2027-W01)" in given
    assert "(2026-W53)" in given
    assert "(2026-W52)" in given


def test_ids_of_the_first_and_last_year_do_no_harm() -> None:
    first, last = datetime(1, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    for zone in ("America/New_York", "Pacific/Kiritimati"):
        policy = Policy(keep_daily=1, keep_hourly=1, keep_within=timedelta(days=36_525), time_zone=zone)
        decisions = plan([backup(first), backup(last), *nightly(2)], policy, NOW)
        assert len(decisions) == 4
        assert plan([backup(first), backup(last)], policy, last)


@pytest.mark.parametrize(
    ("nonsense", "message"),
    [
        ({}, "has no rule"),
        ({"keep_last": 0, "keep_daily": 0}, "has no rule"),
        ({"keep_at_least": 5}, "has no rule"),
        ({"keep_last": -1}, "invalid keep_last -1"),
        ({"keep_daily": "7"}, "invalid keep_daily '7'"),
        ({"keep_daily": 7.0}, "invalid keep_daily 7.0"),
        ({"keep_daily": True}, "invalid keep_daily True"),
        ({"keep_daily": None}, "invalid keep_daily None"),
        ({"keep_last": 1, "keep_at_least": 0}, "invalid keep_at_least 0"),
        ({"keep_within": timedelta(0)}, "invalid keep_within 0:00:00"),
        ({"keep_within": timedelta(days=-1)}, "invalid keep_within -1 day"),
        ({"keep_within": timedelta.max}, "invalid keep_within 999999999 days"),
        ({"keep_within": 30}, "invalid keep_within 30"),
        ({"keep_last": 1, "minimum_level": "archiv"}, "invalid minimum_level 'archiv'"),
        ({"keep_last": 1, "time_zone": "Europe/Berlln"}, "time zone 'Europe/Berlln' does not exist"),
        ({"keep_last": 1, "time_zone": "../../etc/passwd"}, "does not exist"),
        ({"keep_last": 1, "time_zone": "Europe"}, "does not exist"),
        ({"keep_last": 1, "time_zone": ""}, "does not exist"),
        ({"keep_last": 1, "time_zone": None}, "does not exist"),
    ],
)
def test_nonsense_is_refused(nonsense: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Policy(**nonsense)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.hint


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'archive'"):
        Policy(keep_last=1, minimum_level="archiv")


def test_the_policy_as_json() -> None:
    policy = Policy(keep_daily=7, keep_within=timedelta(days=2), minimum_level=None)
    assert policy.describe() == {
        "keep_daily": 7,
        "keep_within": 172800.0,
        "keep_at_least": 1,
        "minimum_level": None,
        "time_zone": "UTC",
    }


@pytest.mark.parametrize(
    ("text", "span"),
    [("36h", timedelta(hours=36)), ("30d", timedelta(days=30)), ("1w12h", timedelta(days=7, hours=12))],
)
def test_durations(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "30", "d", "1y", "1m", "-1d", "1.5d", "1d ", "1d2", "9999999d"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a time span"):
        parse_span(text)


def test_a_span_that_no_clock_reaches_is_refused() -> None:
    assert parse_span("36500d") == timedelta(days=36500)
    for text in ("36526d", "999999w" * 300):
        with pytest.raises(ConfigurationError, match="is too long"):
            parse_span(text)


def test_the_time_grows_with_the_number_of_backups() -> None:
    """Ten times as many take about ten times as long, and not a hundred times.

    benchmarks/bench_catalogue.py has the seconds: here, other programs use the machine.
    """
    chooser = random.Random(6)
    states = [("verified", "archive")] * 8 + [("written", None), ("failed", None)]
    backups = []
    for number in range(30):
        series = Series("prod", f"db{number}")
        for hour in range(1000):
            state, level = chooser.choice(states)
            backups.append(backup(NOW - timedelta(hours=hour, minutes=number), series=series, state=state, level=level))
    policy = Policy(
        keep_last=10,
        keep_hourly=48,
        keep_daily=60,
        keep_weekly=52,
        keep_monthly=120,
        keep_yearly=100,
        keep_within=timedelta(days=10),
        time_zone="Europe/Berlin",
    )
    few = [one for one in backups if NOW - one.started_at < timedelta(hours=100)]
    assert len(few) < len(backups) // 9
    assert min(_seconds(backups, policy) for _ in range(3)) <= 40 * min(_seconds(few, policy) for _ in range(3))


def _seconds(backups: list[Backup], policy: Policy) -> float:
    started = time.thread_time()
    assert len(plan(backups, policy, NOW)) == len(backups)
    return time.thread_time() - started


def test_labels_keep_beside_the_other_rules() -> None:
    backups = nightly(5)
    backups[3] = dataclasses.replace(backups[3], labels=("pre-migration", "v1.2"))
    backups[4] = dataclasses.replace(backups[4], labels=("other",), state="failed", level=None)
    for pattern in ("v1.2", "pre-*", "v?.2"):
        decisions = plan(backups, Policy(keep_last=1, keep_labels=["nothing", pattern]), NOW)
        assert kept(decisions) == [backups[0].id, backups[3].id]
    assert reasons(decisions, backups[3]) == "label v1.2"
    both = plan(backups, Policy(keep_last=1, keep_labels=["v*", "pre-*"]), NOW)
    assert reasons(both, backups[3]) == "label pre-migration, v1.2"
    failed = plan(backups, Policy(keep_last=1, keep_labels=["other"]), NOW)
    assert kept(failed) == [backups[0].id, backups[4].id], "a label is somebody's wish, whatever the state"
    assert Policy(keep_last=1, keep_labels=("a",), minimum_level="restore").describe() == {
        "keep_last": 1,
        "keep_at_least": 1,
        "keep_labels": ["a"],
        "minimum_level": "restore",
        "time_zone": "UTC",
    }
    assert "keep_labels" not in Policy(keep_last=1).describe()


@pytest.mark.parametrize("labels", ["v1", ["a b"], [""], ["\x1b[2J"], ["x" * 64]])
def test_labels_that_no_backup_can_have_are_refused(labels: object) -> None:
    with pytest.raises(ConfigurationError, match="label"):
        Policy(keep_last=1, keep_labels=labels)  # type: ignore[arg-type]


def test_labels_alone_are_no_policy() -> None:
    with pytest.raises(ConfigurationError, match=r"has no rule.*beside keep_labels"):
        Policy(keep_labels=["pre-migration"])


@pytest.mark.parametrize("state", ["verified", "written", "notproven", "failed", "incomplete", "unreadable"])
def test_what_counts(state: str) -> None:
    one = backup(NOW, state=state)
    assert counts_at(one, "archive") == Policy(keep_last=1).counts(one) == (state == "verified")
    assert not counts_at(one, "restore")
    usable = state in ("verified", "written", "notproven")
    assert counts_at(one, None) == Policy(keep_last=1, minimum_level=None).counts(one) == usable


def test_the_reasons_name_the_last_ones_and_those_that_no_rule_sees() -> None:
    newest, *older = nightly(4)
    unreadable = dataclasses.replace(older[1], state="unreadable", level=None, problem="not JSON")
    now, ahead = backup(NOW, state="written"), backup(NOW + timedelta(seconds=1))
    decisions = plan([ahead, now, newest, older[0], unreadable, older[2]], Policy(keep_last=1, keep_at_least=2), NOW)
    assert reasons(decisions, ahead) == "starts in the future, ignored by the retention rules"
    assert reasons(decisions, now).startswith("newest backup; not verified at archive, and too few newer verified")
    assert reasons(decisions, newest) == "last verified backup 1/2; last 1/1"
    assert reasons(decisions, older[0]) == "last verified backup 2/2"
    assert reasons(decisions, unreadable) == "cannot be read: not JSON, ignored by the retention rules"
    assert kept(decisions) == [each.id for each in (ahead, now, newest, older[0], unreadable)]


INTEGER = "Use an integer, 0 or more."
SPAN = "Use a span above 0 and of at most 100 years."
RULES = "keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within"
CENTURY = timedelta(days=36_525)


@pytest.mark.parametrize(
    ("nonsense", "message", "hint"),
    [
        ({"keep_yearly": -1}, "invalid keep_yearly -1", INTEGER),
        ({"keep_last": "7"}, "invalid keep_last '7'", INTEGER),
        (
            {"keep_last": 1, "keep_at_least": 0},
            "invalid keep_at_least 0",
            "Use an integer, 1 or more, since prune never empties a series.",
        ),
        ({"keep_within": 30}, "invalid keep_within 30", "Use a datetime.timedelta."),
        ({"keep_last": 1, "replace_after": "2d"}, "invalid replace_after '2d'", "Use a datetime.timedelta."),
        ({"keep_within": timedelta(0)}, "invalid keep_within 0:00:00", SPAN),
        ({"keep_within": CENTURY + timedelta(seconds=1)}, "invalid keep_within 36525 days, 0:00:01", SPAN),
        ({"keep_last": 1, "replace_after": timedelta(0)}, "invalid replace_after 0:00:00", SPAN),
        *(
            (
                nothing,
                "the retention policy has no rule: it would delete all but the newest backups",
                f"Set at least one of {RULES}{end}",
            )
            for nothing, end in (
                ({"keep_at_least": 2, "replace_after": timedelta(days=1)}, "."),
                ({"keep_labels": ["release"]}, " beside keep_labels."),
            )
        ),
    ],
)
def test_what_is_said_of_an_invalid_policy(nonsense: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Policy(**nonsense)  # type: ignore[arg-type]
    assert (raised.value.message, raised.value.hint) == (message, hint)


@pytest.mark.parametrize("rule", [name.strip() for name in RULES.split(",")])
def test_each_rule_alone_is_a_policy(rule: str) -> None:
    value: object = CENTURY if rule == "keep_within" else 1
    policy = Policy(**{rule: value}, keep_at_least=1, replace_after=CENTURY)  # type: ignore[arg-type]
    assert policy.describe() == {
        rule: CENTURY.total_seconds() if rule == "keep_within" else 1,
        "replace_after": CENTURY.total_seconds(),
        "keep_at_least": 1,
        "minimum_level": "archive",
        "time_zone": "UTC",
    }
    moments = [NOW, NOW - CENTURY, NOW - CENTURY - timedelta(seconds=1)]
    backups = [backup(moment) for moment in moments]
    assert kept(plan(backups, policy, NOW)) == [each.id for each in backups[: 2 if rule == "keep_within" else 1]]


def test_the_present_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match=r"^now has no time zone$"):
        plan([], Policy(keep_last=1), NOW.replace(tzinfo=None))


def test_what_a_set_needs_is_kept() -> None:
    backups = nightly(3)
    others = nightly(3, series=Series("prod", "crm"))
    needed = {(APP, backups[2].id): "in the newest complete set"}
    decisions = plan([*backups, *others], Policy(keep_last=1), NOW, needed)
    assert kept(decisions) == [backups[0].id, backups[2].id, others[0].id]
    assert reasons(decisions, backups[2]) == "in the newest complete set"


def test_a_dropped_database_ages_by_the_backups_of_its_server() -> None:
    backups, others = nightly(8)[3:], nightly(8, series=Series("prod", "crm"))[3:]
    policy = Policy(keep_daily=3, keep_within=timedelta(hours=30), time_zone="Asia/Tokyo")
    # 20:00 UTC is the 21st in Tokyo. Of the 19th there is also a backup, an hour older; of the 18th one as old.
    gone = [
        datetime(2026, 11, 21, 2, tzinfo=timezone.utc),
        datetime(2026, 11, 20, 20, tzinfo=timezone.utc),
        backups[0].started_at + timedelta(hours=1),
        backups[1].started_at,
    ]
    decisions = plan([*backups, *others], policy, NOW, dropped_since={APP: gone})
    assert [reasons(decisions, each) for each in backups] == [
        "newest backup; last verified backup",
        "daily 3/3 (2026-11-18)",
        *["no rule keeps it"] * 3,
    ]
    assert [reasons(decisions, each) for each in others[:4]] == [
        "newest backup; last verified backup; within 30 hours of the newest; daily 1/3 (2026-11-19)",
        "within 30 hours of the newest; daily 2/3 (2026-11-18)",
        "daily 3/3 (2026-11-17)",
        "no rule keeps it",
    ]


def test_the_reasons_of_each_rule() -> None:
    years = [backup(NOW.replace(year=2026 - n)) for n in range(4)]
    decisions = plan(years, Policy(keep_yearly=3, keep_last=2, minimum_level=None), NOW)
    assert [reasons(decisions, each) for each in years] == [
        "newest backup; last usable backup; last 1/2; yearly 1/3 (2026)",
        "last 2/2; yearly 2/3 (2025)",
        "yearly 3/3 (2024)",
        "no rule keeps it",
    ]
    decisions = plan(years[:3], Policy(keep_yearly=3), NOW)
    assert [reasons(decisions, each) for each in years[1:3]] == ["yearly 2/3 (2025)", "yearly 3/3 (2024)"]


@pytest.mark.parametrize(
    ("state", "level", "reason"),
    [
        ("written", "archive", "no rule keeps it, not verified at archive, and there are newer verified backups"),
        ("failed", "restore", "no rule keeps it, failed verification, and there are newer verified backups"),
        ("incomplete", "archive", "no rule keeps it, incomplete, and there are newer verified backups"),
        ("failed", None, "no rule keeps it, failed verification, and there are newer usable backups"),
        ("incomplete", None, "no rule keeps it, incomplete, and there are newer usable backups"),
    ],
)
def test_why_one_that_does_not_count_goes(state: str, level: str | None, reason: str) -> None:
    good, bad = nightly(3, level="restore"), nightly(3, state=state)[2]
    policy = Policy(keep_last=2, minimum_level=level, keep_at_least=2)
    decisions = plan([*good[:2], bad], policy, NOW)
    assert (kept(decisions), reasons(decisions, bad)) == ([each.id for each in good[:2]], reason)
    # Between the two that must stay it stays too.
    between = plan([good[0], backup(good[1].started_at + timedelta(hours=1), state=state), good[1]], policy, NOW)
    kind = "usable" if level is None else "verified"
    wrong = reason.split(", ")[1]
    assert between[1].reasons == (f"{wrong}, and too few newer {kind} backups", f"last 2/2, {wrong}")
