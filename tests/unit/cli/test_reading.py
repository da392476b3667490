"""Commands that read: what they show, and what they do with bad input."""

import json
import os

import pytest
from support.command_line import EVIL, FIRST, INERT, THIRD

from weightslab.cli import render
from weightslab.cli.start import main


def test_experiments_are_listed_newest_first_and_damaged_ones_marked(cli, looked_at):
    done = cli("ls", "--root", looked_at)

    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert lines[0].split()[:3] == ["HASH", "NAME", "CREATED"]
    assert [line[:16] for line in lines[1:]] == ["1e5fa8b701969ff9", FIRST, THIRD]
    assert "damaged: experiment record" in lines[3]
    assert "paper (pinned)" in lines[2]


def test_the_rest_is_counted(cli, looked_at):
    done = cli("ls", "--limit", 1, "--root", looked_at)
    assert len(done.out.splitlines()) == 2
    assert done.err == "and 2 more; --limit 0 lists all\n"
    assert json.loads(cli("ls", "-l", 1, "--root", looked_at, "--json").out)["total"] == 3
    done = cli("ls", FIRST, "--limit", 1, "--where", "step < 3", "--root", looked_at)
    assert (done.out.splitlines()[1].split()[0], done.err[:10]) == (f"{FIRST}@2", "and 1 more")


def test_text_of_the_root_is_shown_inert_everywhere(cli, looked_at):
    for words in (
        ["ls"],
        ["show", FIRST],
        ["tree"],
        ["note", FIRST, "--name"],
        ["diff", FIRST, "1e"],
    ):
        done = cli(*words, "--root", looked_at)
        assert all(line.isprintable() for line in done.out.split("\n")), words
        assert EVIL not in done.out
    assert INERT in cli("show", FIRST, "--root", looked_at).out


def test_checkpoints_are_named_as_people_type_them(cli, looked_at):
    done = cli("ls", FIRST[:4], "--root", looked_at)
    names = [line.split()[0] for line in done.out.splitlines()[1:]]
    assert names == [f"{FIRST}@3", f"{FIRST}@2", f"{FIRST}@1"]
    assert cli("show", names[1], "--root", looked_at).out.startswith(f"checkpoint  {names[1]}\n")


def test_show_tells_of_an_experiment_and_of_a_checkpoint(cli, looked_at):
    told = cli("show", FIRST[:5], "--config", "--root", looked_at).out
    assert "steps        1, 2, 3\n" in told
    assert "pin          step 1: figure\n" in told
    assert told.endswith("\nexperiment: 1\n")
    told = cli("show", f"{FIRST}@latest", "--tensors", "--root", looked_at).out
    assert "TENSOR" in told
    assert "sequence    3\n" in told
    done = cli("show", FIRST, "--tensors", "--root", looked_at)
    assert (done.code, done.out) == (2, "")


def test_samples_are_counted_listed_and_compared(cli, looked_at):
    told = cli("samples", "1e5f", "--root", looked_at).out
    assert "active      20  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...\n" in told
    listed = cli("samples", "1e5f", "--uids", "--root", looked_at).out
    assert listed.split() == [str(uid) for uid in range(20)]
    told = cli("samples", "1e5f", "--against", "1e5f", "--root", looked_at).out
    assert "added       0\n" in told


def test_curves_are_shown_and_drawn(cli, looked_at, tmp_path):
    pytest.importorskip("matplotlib")
    told = cli("log", FIRST, "--metric", "loss", "--root", looked_at)
    assert told.out.splitlines()[1].split() == [FIRST, "loss", "█▅", "▁", "1", "3", "1", "3", "4"]
    picture = tmp_path / "curves.png"
    done = cli("log", "--plot", picture, "--root", looked_at)
    assert (done.code, picture.read_bytes()[:4]) == (0, b"\x89PNG")
    done = cli("log", "--plot", picture, "--root", looked_at)
    assert (done.code, "nothing is replaced" in done.err) == (11, True)


def test_verify_and_doctor_end_with_twenty_where_something_is_damaged(cli, looked_at):
    done = cli("verify", "--root", looked_at)
    assert (done.code, done.out.splitlines()[0][:8]) == (20, "damaged ")
    assert cli("verify", f"{FIRST}@2", "--root", looked_at).code == 0
    done = cli("doctor", "--root", looked_at)
    assert (done.code, done.out.splitlines()[0][:6]) == (20, "error ")


def test_an_audit_tells_the_verdicts(cli, looked_at, tmp_path):
    listed = tmp_path / "uids.txt"
    listed.write_text("17\n18\n")
    done = cli("audit", "--file", listed, "--root", looked_at)
    assert "4 checkpoints: 0 seen, 0 possible, 4 unknown, 0 clean\n" in done.out
    assert done.out.endswith("newest clean: none\n")
    assert cli("audit", "--root", looked_at).code == 2


def test_usage_and_lineage_and_differences_are_shown(cli, looked_at):
    assert "on disk in" in cli("du", "--root", looked_at).out
    assert f"! {THIRD}" in cli("tree", "--root", looked_at).out
    assert f"{FIRST}" in cli("tree", f"{FIRST}@2", "--root", looked_at).out
    assert "experiment: 1 -> 2" in cli("diff", FIRST, "1e5f", "--root", looked_at).out
    assert cli("diff", FIRST, "--root", looked_at).code == 2
    assert "# missing" in cli("reproduce", "1e5f", "--root", looked_at).out


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["ls", "--where", "step <"], 2 + 19, "character 7"),
        (["ls", "--where", "stap < 3"], 21, "nearest: step"),
        (["ls", "--order", "metric.los"], 21, "nothing in the root has the metric"),
        (["ls", "--limit", "-1"], 2, "see weightslab ls --help"),
        (["show", "ffff"], 10, "nearest:"),
        (["show", f"{FIRST}@9"], 10, "nearest: 1, 2, 3"),
        (["show", f"{FIRST}@soon"], 2, "the forms are"),
        (["show"], 2, "see weightslab show --help"),
        (["shwo", FIRST], 2, "see weightslab --help"),
        (["gc", "--max-size", "much", "-n"], 2, "no size such as 20GB"),
        (["export", FIRST, "model.onnx"], 2, ".safetensors or .pt"),
    ],
)
def test_bad_input_is_an_error_and_a_hint(cli, looked_at, words, code, told):
    done = cli(*words, "--root", looked_at)

    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert told in done.err
    assert "Traceback" not in done.err


def test_the_place_in_a_filter_is_marked(cli, looked_at):
    lines = cli("ls", "-w", "step > 1 and stap < 3", "--root", looked_at).err.splitlines()
    place = lines[1].index("stap")
    assert lines[2].index("^") == place


def test_with_json_an_error_is_json(cli, looked_at):
    done = cli("show", "ffff", "--json", "--root", looked_at)

    found = json.loads(done.err)
    assert (done.code, done.out, found["schema"]) == (10, "", "weightslab.cli.error")
    assert found["error"]["kind"] == "ExperimentNotFoundError"
    assert found["error"]["exit_code"] == 10
    assert found["error"]["context"] == {"exp_hash": "ffff"}


def test_the_root_may_stand_before_the_command_or_in_the_variable(cli, looked_at, monkeypatch):
    assert cli("--root", looked_at, "ls").code == 0
    monkeypatch.setenv("WEIGHTSLAB_ROOT", str(looked_at))
    assert cli("ls").code == 0
    monkeypatch.setenv("WEIGHTSLAB_ROOT", str(looked_at / "no"))
    assert cli("ls").code == 10


def test_mistakes_of_the_program_show_where_only_on_request(cli, looked_at, monkeypatch):
    def fail(*_):
        raise KeyError("lost")

    monkeypatch.setattr("weightslab.cli.listing.open_root", fail)
    done = cli("ls", "--root", looked_at)
    assert (done.code, done.err.splitlines()[0]) == (1, "error: KeyError: 'lost'")
    assert "WEIGHTSLAB_DEBUG=1" in done.err
    monkeypatch.setenv("WEIGHTSLAB_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["ls", "--root", str(looked_at)])


def test_ctrl_c_ends_with_130(cli, looked_at, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("weightslab.cli.listing.open_root", interrupt)
    assert cli("ls", "--root", looked_at)[::2] == (130, "")


def test_a_missing_package_is_named_with_the_extra(cli, monkeypatch):
    monkeypatch.setattr(
        "weightslab.cli.start.find_spec", lambda name: None if name == "rich" else True
    )
    done = cli("ls")
    assert (done.code, done.err) == (
        40,
        "error: the command line needs rich\nhint: pip install 'weightslab[cli]'\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_every_reading_command_works_in_a_read_only_root(cli, root):
    (root / "data").rmdir()  # opened for writing, a root gets it again, whoever runs the tests
    before = sorted(root.rglob("*"))
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for words in (
            ["ls"],
            ["show", FIRST],
            ["tree"],
            ["log"],
            ["samples", "1e5f"],
            ["du"],
            ["restore"],
            ["tag", FIRST],
            ["verify", FIRST],
            ["gc", "--latest", "1", "--dry-run"],
            ["rm", FIRST, "--dry-run"],
        ):
            assert cli(*words, "--root", root).code == 0, words
    finally:
        for path in before:
            path.chmod(0o755)
    assert sorted(root.rglob("*")) == before


# ---------------------------------------------------------------- the terminal
class Screen:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def fileno(self):
        raise OSError


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"COLUMNS": "40", "LC_ALL": "C.UTF-8"}, render.Terminal(40, True, True)),
        ({"COLUMNS": "40", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}, render.Terminal(40, False, True)),
        ({"COLUMNS": "0", "TERM": "dumb", "LC_ALL": "C"}, render.Terminal(None, False, False)),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="colour depends on the console")
def test_a_terminal_is_asked_what_it_can_show(monkeypatch, variables, expected):
    for name in ("COLUMNS", "NO_COLOR", "TERM", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert render.Terminal.of(Screen()) == expected


def test_an_encoding_without_bars_gets_ascii(monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.ISO-8859-1")
    screen = Screen()
    screen.encoding = "latin-1"
    assert not render.Terminal.of(screen).is_unicode
