"""The filter language: what can be read, and where an error points."""

import pytest

from weightslab.engine.errors import FilterError, FormatError
from weightslab.engine.query.language import parse_filter, parse_order
from weightslab.engine.query.nodes import Comparison, Every, Exists, Field, Flag, Literal, Not, Some


def test_and_binds_more_than_or_and_not_more_than_both():
    found = parse_filter("damaged or pinned and not exists name")
    name = Field(("name",), (False,), 33)
    assert found == Some(
        (
            Flag(Field(("damaged",), (False,), 0)),
            Every((Flag(Field(("pinned",), (False,), 11)), Not(Exists(name)))),
        )
    )


def test_parts_of_a_name_can_be_quoted():
    found = parse_filter("""config."a.b".c-1 = 'it''s'""".replace("''", "\\'"))
    assert found == Comparison(
        Field(("config", "a.b", "c-1"), (False, True, False), 0),
        "=",
        (Literal("it's", True, 19),),
        17,
    )


@pytest.mark.parametrize(
    ("text", "operator", "values"),
    [
        ("step in (1,2 , 3)", "in", ["1", "2", "3"]),
        ("step NOT IN (1)", "not in", ["1"]),
        ("step==-1e-3", "=", ["-1e-3"]),
        ("name~*base?", "~", ["*base?"]),
        ("name !~ x", "!~", ["x"]),
        ("created>=2026-01-01T10:00:00+02:00", ">=", ["2026-01-01T10:00:00+02:00"]),
        ("name = and", "=", ["and"]),
        ('name = "\\"\\\\\\n"', "=", ['"\\\n']),
    ],
)
def test_operators_and_values(text, operator, values):
    found = parse_filter(text)
    assert (found.operator, [x.text for x in found.literals]) == (operator, values)


def test_words_that_begin_like_keywords_are_names():
    fields = parse_filter("nothing = 1 and order = 2 and input = 3").parts
    assert [f.field.segments for f in fields] == [("nothing",), ("order",), ("input",)]


BAD = [
    ("", 0, "empty"),
    ("step >", 6, "ends here"),
    ("step > )", 7, "')' cannot stand here"),
    ("(step > 1", 9, "expected ')'"),
    ('name = "x', 7, "quote is not closed"),
    ("step 3", 5, "'3' cannot stand here"),
    ("config..lr = 1", 7, "empty parts"),
    ("config. = 1", 7, "empty parts"),
    ("a in ()", 6, "')' cannot stand here"),
    ("a = 1 # b", 6, "'#' cannot stand here"),
    ("a && b", 2, "'&&' cannot stand here"),
    ('a = x"y"', 4, "in quotes as a whole"),
    ("a = 1; drop table facts", 7, "'drop' cannot stand here"),
    ("a ! 1", 2, "'!' cannot stand here"),
    ("(" * 200, 100, "parentheses"),
    ("not " * 2000 + "a", 8000, "nested too deeply"),
    ("x" * 20_000, 10_000, "20,000 characters"),
]


@pytest.mark.parametrize(("text", "position", "message"), BAD, ids=lambda v: str(v)[:20])
def test_an_error_points_at_its_place(text, position, message):
    with pytest.raises(
        FilterError, match=message.replace("(", "\\(").replace(")", "\\)")
    ) as caught:
        parse_filter(text)
    assert caught.value.position == position
    line, mark = str(caught.value).split("\n")[-2:]
    assert mark.strip() == "^"
    assert position >= len(text) or line[len(mark) - 1] == text[position]


def test_the_error_is_one_of_format_with_what_is_shown_inert():
    with pytest.raises(FormatError) as caught:
        parse_filter("\x1b[31m = 3 3")
    assert str(caught.value) == (
        "filter, character 11: '3' cannot stand here; expected 'or' or 'and' or the end\n"
        "  ?[31m = 3 3\n            ^"
    )
    assert caught.value.exit_code == 21


def test_a_filter_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="a filter is a str"):
        parse_filter(3)
    with pytest.raises(TypeError, match="an order is a str"):
        parse_order(3)


def test_a_thousand_parts_are_read():
    assert len(parse_filter(" or ".join(["pinned"] * 900)).parts) == 900


def test_an_order_is_names_with_a_minus_for_descending():
    found = parse_order('-metric.val-loss, config."a,b" ,+step')
    told = [(key.field.segments, key.is_descending) for key in found]
    assert told == [
        (("metric", "val-loss"), True),
        (("config", "a,b"), False),
        (("step",), False),
    ]


@pytest.mark.parametrize(("text", "position"), [("", 0), ("a,", 2), ("a,,b", 2), ("- ", 0)])
def test_a_bad_order_points_at_its_place(text, position):
    with pytest.raises(FilterError, match="order, character") as caught:
        parse_order(text)
    assert caught.value.position == position
