"""docs/cli.md and `--help` tell of every command and option, and the same."""

import shlex

import pytest
from support.cli_page import MARK, PAGE, commands, listing
from support.command_line import run

from weightslab.cli.app import COMMANDS, make_app
from weightslab.cli.start import main

TEXT = PAGE.read_text("utf-8")


def test_the_page_lists_what_the_commands_say_of_themselves():
    assert TEXT.partition(MARK)[2].strip() == listing().strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_and_has_examples(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(capsys, name, "--help")

    assert done.code == 0
    assert f"weightslab {name}" in done.out.partition("Examples:")[2]
    for param in commands()[name].params:
        for option in (o for o in param.opts if o.startswith("-")):
            assert option in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_typed(name):
    """Each line parses: no option in it is unknown, no argument is missing."""
    _, _, examples = commands()[name].help.partition("\b\nExamples:\n")
    lines = [line.strip() for line in examples.strip().splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert words[:2] == ["weightslab", name]
        commands()[name].make_context(name, words[2:])


def test_help_of_the_whole_lists_every_command_with_a_line_that_fits(capsys):
    lines = run(capsys, "--help").out.splitlines()
    for name, (_, told) in COMMANDS.items():
        assert any(line.split() == [name, *told.split()] for line in lines), name


def test_what_is_called_is_built_alone_and_the_same():
    assert [info.name for info in make_app(["ls"]).registered_commands] == ["ls"]
    assert len(make_app([]).registered_commands) == len(COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    from weightslab import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
