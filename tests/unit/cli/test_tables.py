"""Tables that fit the terminal."""

from weightslab.cli.tables import Column, layout_table

HASH, NAME = Column("HASH", least=4, has_mark=False), Column("NAME", least=5, rank=1)
SIZE = Column("SIZE", is_right=True, rank=2)
ROWS = [["0123456789abcdef", "a long name of it", "12 MB"], ["fedcba9876543210", "short", "1 B"]]


def test_columns_stand_below_each_other_and_numbers_at_the_right():
    assert layout_table([HASH, NAME, SIZE], ROWS, width=None) == [
        "HASH              NAME                SIZE",
        "0123456789abcdef  a long name of it  12 MB",
        "fedcba9876543210  short                1 B",
    ]


def test_texts_are_cut_before_columns_go():
    lines = layout_table([HASH, NAME, SIZE], ROWS, width=24)
    assert lines == [
        "HASH     NAME       SIZE",
        "0123456  a lon...  12 MB",
        "fedcba9  short       1 B",
    ]


def test_columns_of_the_highest_rank_go_first():
    assert layout_table([HASH, NAME, SIZE], ROWS, width=12)[0].split() == ["HASH", "NAME"]
    assert layout_table([HASH, NAME, SIZE], ROWS, width=8)[0] == "HASH"


def test_no_line_is_wider_than_the_terminal():
    for width in range(1, 60):
        lines = layout_table([HASH, NAME, SIZE], ROWS, width=width)
        assert max(map(len, lines)) <= width


def test_a_column_without_anything_in_it_is_left_out():
    rows = [["0123", "", "1 B"]]
    assert layout_table([HASH, NAME, SIZE], rows, width=None)[0] == "HASH  SIZE"


def test_colour_does_not_count():
    lines = layout_table([HASH], [["0123"]], width=4, paint=lambda at, line: f"<{at}>{line}")
    assert lines == ["<-1>HASH", "<0>0123"]
