"""Windows by the clock on a wall, whatever summer time does to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.schedule import DAYS, FORM, Window, day_begin, next_day, read_window

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
# Half an hour of summer time, a day that was left out, midnights that do not exist, no summer time at all.
ZONES = [
    ZoneInfo(name)
    for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "UTC")
]
MINUTE = timedelta(minutes=1)
zones = st.sampled_from(ZONES)
minutes = st.integers(0, 24 * 60 - 1)
windows = st.builds(
    Window, st.frozensets(st.integers(0, 6)), minutes, st.integers(1, 24 * 60), zones
).filter(lambda window: window.begins != window.ends)  # fmt: skip
moments = st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


def shown(now: datetime, window: Window) -> bool:
    """Say the same by the calendar: is what the wall shows between the begin and the end of one of its days?"""
    wall = now.astimezone(window.zone).replace(tzinfo=None)
    midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (midnight, midnight - timedelta(days=1)):
        length = (window.ends - window.begins) % (24 * 60) or 24 * 60
        begin = day + window.begins * MINUTE
        if day.weekday() in window.days and begin <= wall < begin + length * MINUTE:
            return True
    return False


@given(windows, moments)
def test_a_window_is_open_when_the_wall_shows_its_time(window: Window, now: datetime) -> None:
    assert window.is_open(now) is shown(now, window)


@given(windows, st.sampled_from(ZONES), st.integers(0, 400))
def test_in_a_week_it_is_open_as_long_as_it_says_give_or_take_an_hour_of_summer_time(
    window: Window, zone: ZoneInfo, week: int
) -> None:
    begin = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(weeks=week)
    here = Window(window.days, window.begins, window.ends, zone)
    length = (window.ends - window.begins) % (24 * 60) or 24 * 60
    step = timedelta(minutes=15)
    open_for = sum(here.is_open(begin + number * step) for number in range(7 * 24 * 4)) * 15
    assert abs(open_for - len(window.days) * length) <= 60 + 15 * len(window.days)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("mon-fri 08:00-18:00", ["2026-11-30 08:00", "2026-12-04 17:59"], ["2026-11-30 07:59", "2026-12-05 12:00"]),
        ("fri-mon 08:00-18:00", ["2026-11-29 12:00", "2026-11-30 12:00"], ["2026-12-01 12:00", "2026-12-03 12:00"]),
        ("Sat,Sun 22:00-06:00", ["2026-11-28 23:00", "2026-11-30 05:59"], ["2026-11-28 05:00", "2026-11-30 06:00"]),
        ("* 00:00-24:00", ["2026-11-28 00:00", "2026-11-30 23:59"], []),
        # In the night to 25 October 2026 the wall in Berlin shows 02:30 twice, in that to 29 March 2026 it does not.
        ("sun 02:00-03:00", ["2026-10-25 02:30", "2026-10-25 02:59"], ["2026-10-25 03:00"]),
    ],
)
def test_windows_are_read(text: str, inside: list[str], outside: list[str]) -> None:
    window = read_window(text, BERLIN)
    assert window is not None
    for wall, is_open in [*((one, True) for one in inside), *((one, False) for one in outside)]:
        at = datetime.fromisoformat(wall).replace(tzinfo=BERLIN)
        assert window.is_open(at.astimezone(UTC)) is is_open, wall
        assert window.is_open(at.replace(fold=1).astimezone(UTC)) is is_open, wall


def test_an_hour_that_the_clock_skips_opens_nothing() -> None:
    window = read_window("sun 02:00-03:00", BERLIN)
    assert window is not None
    night = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)
    assert not any(window.is_open(night + number * MINUTE) for number in range(12 * 60))


@pytest.mark.parametrize(
    "text",
    [
        *("", "08:00-18:00", "mon 8:00-18:00", "mon 08:00-18:00 x", "mon 08:00-25:00", "mon 08:60-09:00"),
        *("mon 24:00-08:00", "mon 08:00-08:00", "mo 08:00-18:00", "mon- 08:00-18:00", "mon,,tue 08:00-18:00"),
        *("mon-fri", "mon 08:00 18:00"),
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    assert read_window(text, UTC) is None


@given(st.text(max_size=30))
def test_no_text_makes_it_fail(text: str) -> None:
    read_window(text, UTC)


@given(windows)
def test_what_is_written_as_the_form_says_is_read_back(window: Window) -> None:
    if not window.days:
        return
    days = ",".join(DAYS[day] for day in window.days)
    times = [f"{minute // 60:02}:{minute % 60:02}" for minute in (window.begins, window.ends)]
    assert read_window(f"{days} {'-'.join(times)}", window.zone) == window
    assert "HH:MM-HH:MM" in FORM


@given(moments, zones)
def test_a_day_begins_when_the_wall_says_so_and_the_next_one_follows(now: datetime, zone: ZoneInfo) -> None:
    begin, end = day_begin(now, zone), next_day(now, zone)
    assert begin <= now < end
    assert begin.astimezone(zone).date() == now.astimezone(zone).date()
    assert timedelta(hours=22) < end - begin <= timedelta(hours=26) or zone.key == "Pacific/Apia"
