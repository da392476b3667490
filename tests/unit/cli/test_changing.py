"""Commands that change a root: nothing goes without an answer, and what goes to the trash comes back."""

import json

import pytest
from support.command_line import FIRST, THIRD

from weightslab.cli import render
from weightslab.cli.collecting import bytes_of
from weightslab.engine.root import CheckpointRoot


def steps(root):
    return [entry.name.step for entry in CheckpointRoot(root, read_only=True).checkpoints(FIRST)]


@pytest.mark.parametrize(
    "words", [["rm", f"{FIRST}@2"], ["rm", THIRD], ["gc", "--latest", "1"], ["gc"]]
)
def test_without_an_answer_nothing_is_deleted(cli, root, words):
    before = sorted(root.rglob("*"))

    done = cli(*words, "--root", root)

    assert done.code == 2
    assert "hint: pass --yes" in done.err
    assert sorted(p for p in root.rglob("*")) == before


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 1), ("y\n", 0), ("Yes\n", 0)])
def test_somebody_at_the_terminal_is_asked(cli, root, monkeypatch, answer, code):
    class Keyboard:
        def isatty(self):
            return True

        def readline(self):
            return answer

    monkeypatch.setattr("sys.stdin", Keyboard())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")

    done = cli("rm", f"{FIRST}@2", "--root", root)

    assert done.code == code
    assert "move 1 checkpoint to the trash? [y/N]" in done.err
    assert (2 in steps(root)) == bool(code)


def test_a_step_goes_to_the_trash_and_comes_back(cli, root):
    assert cli("rm", f"{FIRST}@2", f"{FIRST}@3", "--yes", "--root", root).code == 0
    assert steps(root) == [1]
    listed = json.loads(cli("restore", "--json", "--root", root).out)["trash"]
    assert [entry["step"] for entry in listed] == [2, 3]
    assert cli("restore", f"{FIRST[:4]}@2", "--dry-run", "--root", root).out.startswith(
        "would be back"
    )
    done = cli("restore", f"{FIRST[:4]}@2", f"{FIRST[:4]}@3", "--root", root)
    assert (done.code, done.out) == (0, f"is back: {FIRST}@2\nis back: {FIRST}@3\n")
    assert steps(root) == [1, 2, 3]
    assert cli("restore", f"{FIRST}@2", "--root", root).code == 10
    assert cli("restore", FIRST, "--root", root).code == 2


def test_what_is_pinned_stays_unless_forced(cli, root):
    done = cli("rm", f"{FIRST}@1", "--yes", "--root", root)
    assert (done.code, "pin REF --remove" in done.err, steps(root)) == (12, True, [1, 2, 3])
    assert cli("pin", f"{FIRST}@1", "--remove", "--root", root).code == 0
    assert cli("rm", f"{FIRST}@1", "--forever", "--yes", "--root", root).code == 0
    assert steps(root) == [2, 3]
    assert cli("restore", "--root", root).err == "the trash is empty\n"


def test_an_experiment_goes_for_good(cli, root):
    assert cli("rm", "1e5f", "--dry-run", "--root", root).code == 0
    assert (root / "checkpoints" / "1e5fa8b701969ff9").exists()
    assert cli("rm", "1e5f", "--yes", "--root", root).code == 0
    assert not (root / "checkpoints" / "1e5fa8b701969ff9").exists()


def test_gc_shows_first_what_would_go_and_then_does_it(cli, root):
    told = cli("gc", "--latest", 1, "--dry-run", "--root", root)
    assert "1 checkpoint would be dropped" in told.out
    assert steps(root) == [1, 2, 3]
    found = json.loads(cli("gc", "--latest", 1, "--yes", "--json", "--root", root).out)
    assert found["dry_run"] is False
    assert steps(root) == [1, 3]  # the pinned one and the newest


def test_notes_tags_and_names_are_written_listed_and_taken_back(cli, root):
    for kind in ("tag", "note"):
        assert cli(kind, f"{FIRST}@3", "new \x1b text", "--root", root).code == 0
        assert r"new \x1b text" in cli(kind, FIRST, "--root", root).out
        assert cli(kind, f"{FIRST}@3", "new \x1b text", "--remove", "--root", root).code == 0
        assert r"new \x1b text" not in cli(kind, FIRST, "--root", root).out
        assert cli(kind, FIRST, "never said", "--remove", "--root", root).code == 10
        assert cli(kind, FIRST, "--remove", "--root", root).code == 2
    assert cli("note", FIRST, "paper run", "--name", "--root", root).code == 0
    assert cli("note", FIRST, "--name", "--root", root).out == "paper run\n"
    assert cli("note", FIRST, "--name", "--remove", "--root", root).code == 0
    assert cli("note", FIRST, "--name", "--root", root).err == f"{FIRST} has no name\n"
    assert cli("note", f"{FIRST}@1", "x", "--name", "--root", root).code == 2


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("20GB", 20 * 10**9), ("1.5 TB", 15 * 10**11), ("512MiB", 512 << 20), ("7", 7), ("1k", 1000)],
)
def test_sizes_are_read(text, size_bytes):
    assert bytes_of(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e3", "20 GBs"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="no size such as"):
        bytes_of(text)


def test_confirm_needs_somebody(monkeypatch):
    assert render.confirm("go on?", yes=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(render.NeedsAnswerError):
        render.confirm("go on?", yes=False)
