"""The verdict of the soak on a series: flat, growing, or too short to say."""

from __future__ import annotations

import pytest

from tests.campaign.soaking.trends import LEAST_WINDOWS, trend

EACH_TEN_SECONDS = [10.0 * number for number in range(360)]


def test_what_tasks_take_for_a_moment_is_no_growth() -> None:
    values = [300.0 + (number % 12) * 40 + number % 7 for number in range(360)]
    found = trend(EACH_TEN_SECONDS, values, floor=1)
    assert found.flat is True
    assert abs(found.growth) < 3


def test_a_start_that_grows_is_no_growth_if_the_second_half_is_flat() -> None:
    values = [min(number, 150) * 2.0 for number in range(360)]
    assert trend(EACH_TEN_SECONDS, values, floor=1).growth == pytest.approx(0)


@pytest.mark.parametrize(("leak", "flat"), [(0.05, True), (0.5, False)])
def test_growth_counts_from_a_tenth_of_the_mean(leak: float, flat: bool) -> None:
    values = [300.0 + number * leak + (number % 12) * 40 for number in range(360)]
    found = trend(EACH_TEN_SECONDS, values, floor=1)
    assert found.growth == pytest.approx(leak * 168, rel=0.01)  # from the first of 15 windows to the last
    assert found.flat is flat


def test_growth_up_to_the_floor_is_flat() -> None:
    values = [number / 100 for number in range(360)]
    assert trend(EACH_TEN_SECONDS, values, floor=4).flat is True
    assert trend(EACH_TEN_SECONDS, values, floor=1).flat is False


def test_a_short_run_gives_no_verdict() -> None:
    seconds = EACH_TEN_SECONDS[:60]
    found = trend(seconds, [float(number) for number in range(60)], floor=1)
    assert found.windows < LEAST_WINDOWS
    assert found.flat is None
    assert trend([], [], floor=1).flat is None


def test_each_value_of_a_run_counts_without_a_window() -> None:
    runs = [float(number) for number in range(20)]
    assert trend(runs, [75.0] * 20, floor=2, window=0).flat is True
    assert trend(runs, [75.0 + number for number in range(20)], floor=2, window=0).flat is False
