"""`weightslab tree`: which experiment came from which, and what changed on the way."""

from __future__ import annotations

from weightslab.cli import render
from weightslab.cli.arguments import JsonOption, OptionalReference, RootOption
from weightslab.cli.roots import open_root
from weightslab.cli.texts import cut, inert

__all__ = ["tree"]


def tree(
    ref: OptionalReference = None, root: RootOption = None, as_json: JsonOption = False
) -> None:
    """Show the tree of experiments, with the step each left from and what changed.

    With REF, the exact experiments and steps that led to the weights of this checkpoint.

    \b
    Examples:
      weightslab tree
      weightslab tree 3f2a@100
      weightslab tree --json
    """
    opened = open_root(root)
    if ref is not None:
        history = opened.history(ref)
        if as_json:
            render.show_json("history", {"root": str(opened.path), **_content(history.to_dict())})
        else:
            _say(str(history))
        return
    found = opened.lineage()
    if as_json:
        render.show_json("tree", {"root": str(opened.path), **_content(found.to_dict())})
    elif not found.nodes:
        render.note(f"no experiments in {opened.path}")
    else:
        _say(str(found))


def _content(document: dict[str, object]) -> dict[str, object]:
    """Return a document without its own frame: that of the command stands in its place."""
    return {
        key: value for key, value in document.items() if key not in ("schema", "schema_version")
    }


def _say(text: str) -> None:
    terminal = render.out()
    lines = map(inert, text.splitlines())
    if terminal.width is None:
        render.say(*lines)
    else:
        render.say(*(cut(line, terminal.width, terminal.mark) for line in lines))
