"""Texts on a screen: inert, cut, counted."""

from datetime import datetime, timedelta, timezone

import pytest

from weightslab.cli.texts import columns_of, counted, cut, inert, number, size, sparkline, when


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066x\u2069\u200b", r"\u2066x\u2069\u200b"),
        ("\udc80\x9b31m", r"\udc80\x9b31m"),
        ("gr\u00fcn \u7d75", "gr\u00fcn \u7d75"),
        (17, "17"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert inert(text) == shown


def test_wide_characters_take_two_columns_and_accents_none():
    assert (columns_of("abc"), columns_of("\u7d75\u7d75"), columns_of("e\u0301")) == (3, 4, 1)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "ab..."),
        ("abcdef", 2, ".."),
        ("\u7d75\u7d75\u7d75", 5, "\u7d75..."),
    ],
)
def test_text_is_cut_to_columns(text, width, shown):
    assert cut(text, width) == shown
    assert columns_of(cut(text, width)) <= width


def test_numbers_and_sizes_are_short():
    assert [number(v) for v in (0.312711, 1.5e-5, 12000, None, True, float("nan"))] == [
        "0.3127",
        "1.5e-05",
        "12,000",
        "",
        "true",
        "nan",
    ]
    assert number(10**400) == "huge"
    assert [size(v) for v in (0, 999, 1000, 1_234_567, None)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "",
    ]
    assert [counted(n, "file") for n in (0, 1, 2000)] == ["no files", "1 file", "2,000 files"]


def test_times_are_in_utc_to_the_minute():
    east = timezone(timedelta(hours=2))
    assert when(datetime(2026, 1, 31, 1, 5, tzinfo=east)) == "2026-01-30 23:05"
    assert (when("2026-01-31T14:05:59+00:00"), when(None), when("\x1b")) == (
        "2026-01-31 14:05",
        "",
        r"\x1b",
    )


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([1.0, 1.0, 1.0], "▁▁▁"),
        ([], ""),
        ([0.0, float("nan"), 7.0], "▁ █"),
        ([0.0, float("inf"), float("-inf"), 7.0], "▁█▁█"),
        ([float("nan")], " "),
        ([-1.7e308, 1.7e308], "▁█"),
        ([0, 10**400], "▁█"),
    ],
)
def test_a_curve_shows_low_and_high_and_what_is_no_number(values, curve):
    assert sparkline(values, 8) == curve


def test_long_curves_are_averaged_and_have_an_ascii_form():
    assert sparkline(range(1000), 4) == "▁▃▆█"
    assert sparkline([0, 7], 8, is_unicode=False) == "_#"
    assert len(sparkline([1.0, float("inf"), float("-inf")] * 5, 3)) == 3
