"""Changes as text that fits on a screen."""

from weightslab.engine.screen import screen
from weightslab.engine.values import Change, Explanation, HashUpdate


def change(text, detail=(), component="model"):
    """Return a change with a text and details."""
    return Change(component=component, kind="changed", path="p", text=text, detail=tuple(detail))


def test_a_short_list_is_shown_whole_with_details_below_each():
    told = screen("head", [change("a", ["-x", "+y"]), change("b")])
    assert told.split("\n") == ["head", "  a", "    -x", "    +y", "  b"]


def test_changes_beyond_the_screen_are_counted_by_component():
    changes = [change(str(n)) for n in range(240)]
    changes += [change("lr", component="config") for _ in range(12)]
    lines = screen("head", changes).split("\n")
    assert len(lines) == 40
    assert lines[-1] == "  and 214 more changes (202 of the model, 12 of the config)"
    assert lines[-2] == "  37"


def test_exactly_a_screen_of_changes_is_not_counted():
    lines = screen("head", [change(str(n)) for n in range(39)]).split("\n")
    assert (len(lines), lines[-1]) == (40, "  38")


def test_a_long_diff_is_shortened_and_the_rest_of_it_counted():
    lines = screen("head", [change("a", [f"+{n}" for n in range(100)])]).split("\n")
    assert len(lines) == 40
    assert lines[-2:] == ["    +36", "    ... 63 more lines"]


def test_short_diffs_are_whole_where_long_ones_share_what_is_left():
    changes = [change("a", ["1"] * 200), change("b", ["2"] * 3), change("c", ["3"] * 200)]
    lines = screen("head", changes).split("\n")
    assert len(lines) == 40
    assert lines.count("    2") == 3
    assert lines.count("    1") == lines.count("    3") + 1 == 16


def test_a_diff_with_no_room_says_how_long_it_is():
    changes = [change(str(n), ["x"] * 9) for n in range(20)]
    lines = screen("head", changes).split("\n")
    assert lines[1:3] == ["  0", "    ... 9 lines of detail"]


def test_lines_are_cut_and_do_nothing_to_a_terminal():
    lines = screen("head", [change("x" * 200), change("\x1b[31mred\n\tb")]).split("\n")
    assert lines[1:] == ["  " + "x" * 95 + "...", "  ?[31mred?    b"]


def test_what_does_not_count_stands_apart_and_is_short():
    beside = [f"lib{n} 1 -> 2" for n in range(9)]
    assert screen("head", [change("a")], beside).split("\n") == [
        "head",
        "  a",
        "  not in the identity:",
        *(f"    lib{n} 1 -> 2" for n in range(5)),
        "    and 4 more",
    ]


def test_equal_experiments_are_said_to_be_equal():
    assert str(Explanation(old="a", new="b")) == "a -> b: no differences"
    assert len(Explanation(old="a", new="b")) == 0


def test_one_change_is_not_many():
    told = Explanation(old="a", new="b", changes=(change("lr: 1 -> 2"),))
    assert str(told) == "a -> b: 1 change\n  lr: 1 -> 2"
    assert [str(c) for c in told] == ["lr: 1 -> 2"]


def test_update_of_a_hash_shows_a_screen_of_its_changes():
    changes = tuple(change(str(n), ["+x"]) for n in range(100))
    update = HashUpdate(exp_hash="new", is_new=True, changes=changes, compared_with="old")
    assert len(str(update).split("\n")) == 40
    assert str(update).startswith("new (new), compared with old:\n  0\n")


def test_explanation_as_plain_values_keeps_everything():
    changes = tuple(change(str(n), ["+x"] * 50) for n in range(100))
    told = Explanation(old="a", new="b", changes=changes).to_dict()
    assert (told["old"], len(told["changes"]), told["changes"][99]["detail"]) == (
        "a",
        100,
        ["+x"] * 50,
    )
