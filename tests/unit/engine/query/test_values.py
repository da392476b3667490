"""Values of a filter: numbers, units, times and globs."""

import math
from datetime import datetime, timezone

import pytest

from weightslab.engine.query.values import read_number, read_quantity, read_span
from weightslab.engine.repository.globs import glob_matches

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("-2.5", -2.5), ("1e-3", 0.001), (".5", 0.5), ("+7", 7), ("-inf", -math.inf)],
)
def test_numbers(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize("text", ["", "1_000", "0x10", "1e", "one", "1 2", "--1", "9" * 500])
def test_what_is_no_number(text):
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("10k", 10_000), ("1.5GB", 1.5e9), ("2GiB", 2 << 30), ("3Ki", 3072), ("5B", 5), ("1e3", 1000)],
)
def test_units(text, number):
    assert read_quantity(text) == number
    assert read_quantity(f"{text}x") is None


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-01-15", "2026-01-15T00:00:00+00:00", "2026-01-16T00:00:00+00:00"),
        ("2026-01-15T10:30", "2026-01-15T10:30:00+00:00", "2026-01-15T10:31:00+00:00"),
        ("2026-01-15 10:30:05+0200", "2026-01-15T08:30:05+00:00", "2026-01-15T08:30:06+00:00"),
        ("2d ago", "2026-03-08T12:30:00+00:00", "2026-03-08T12:30:00.000001+00:00"),
        ("90min", "2026-03-10T11:00:00+00:00", "2026-03-10T11:00:00.000001+00:00"),
        ("yesterday", "2026-03-09T00:00:00+00:00", "2026-03-10T00:00:00+00:00"),
    ],
)
def test_times_are_as_exact_as_they_are_written(text, start, end):
    span = read_span(text, NOW)
    moments = [datetime.fromisoformat(t).timestamp() * 1e6 for t in (start, end)]
    assert [span.start, span.end] == moments


@pytest.mark.parametrize("text", ["2026-02-30", "soon", "5y", "2026", "9" * 30 + "d", ""])
def test_what_is_no_time(text):
    assert read_span(text, NOW) is None


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("base", "my BASEline", True),
        ("base*", "my baseline", False),
        ("*line", "my baseline", True),
        ("m?*b*e", "my baseline", True),
        ("a*a", "a", False),
        ("*a?c*", "xxabyabc", True),
        ("?", "", False),
        ("[ab]", "a", False),
        ("", "anything", True),
        ("*" * 50 + "b", "a" * 5000, False),
        ("x", None, False),
    ],
)
def test_globs(pattern, text, fits):
    assert glob_matches(pattern, text) is fits
