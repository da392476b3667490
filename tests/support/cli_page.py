"""The part of docs/cli.md that lists commands, made from the commands themselves.

`PYTHONPATH=tests python -m support.cli_page` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer

from support.golden_json import ASKED, FOLDER
from weightslab.cli.app import COMMANDS, make_app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
MARK = (
    "<!-- what follows is made from the commands: PYTHONPATH=tests python -m support.cli_page -->\n"
)


def commands():
    """Return name -> command, as `--help` shows them."""
    group = typer.main.get_command(make_app(()))
    return {name: group.commands[name] for name in COMMANDS}


def section(name, command):
    """Return the section about a command."""
    told, _, examples = command.help.partition("\b\nExamples:\n")
    lines = [f"### `{name}`", ""]
    for paragraph in told.strip().split("\n\n"):
        lines += [" ".join(paragraph.split()), ""]
    lines += ["```bash", *(line.strip() for line in examples.strip().splitlines()), "```", ""]
    lines += ["| argument | meaning |", "|---|---|"]
    lines += [*(row(param) for param in command.params), ""]
    shapes = dict.fromkeys(shape(golden) for golden, words in ASKED.items() if words[0] == name)
    return "\n".join([*lines, *(line for told in shapes for line in (told, ""))])


def shape(golden):
    """Return what a document is called and which keys it has, from a golden file."""
    document = json.loads((FOLDER / f"{golden}.json").read_text("utf-8"))
    keys = ", ".join(f"`{key}`" for key in document if not key.startswith("schema"))
    return f"JSON `{document['schema']}`: {keys}."


def row(param):
    """Return the row of an argument or option."""
    names = [*param.opts, *param.secondary_opts]
    if param.param_type_name == "argument":
        names = [param.make_metavar() if param.metavar is None else param.metavar]
    shown = ", ".join(f"`{name}`" for name in sorted(names, key=len, reverse=True))
    return f"| {shown.replace('|', chr(92) + '|')} | {param.help} |"


def listing():
    """Return all sections."""
    return "\n".join(section(name, command) for name, command in commands().items())


if __name__ == "__main__":
    intro = PAGE.read_text("utf-8").partition(MARK)[0]
    PAGE.write_text(f"{intro}{MARK}\n{listing()}", encoding="utf-8")
