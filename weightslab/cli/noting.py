"""`weightslab pin`, `tag`, `note`: what people say about experiments and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    JsonOption,
    ReferenceArgument,
    RootOption,
    chosen,
    has_revision,
)
from weightslab.cli.roots import open_root
from weightslab.cli.texts import inert
from weightslab.engine.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from weightslab.engine.repository.notes import Note
    from weightslab.engine.root import CheckpointRoot

__all__ = ["note", "pin", "tag"]

RemoveOption = Annotated[bool, typer.Option("--remove", help="Take it back.")]
TextArgument = Annotated[
    Optional[str],
    typer.Argument(metavar="[TEXT]", help="What is said.", show_default=False),
]


def pin(
    ref: ReferenceArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")] = "",
    remove: RemoveOption = False,
    root: RootOption = None,
) -> None:
    """Keep an experiment or a checkpoint from being deleted, by gc and by rm.

    \b
    Examples:
      weightslab pin 3f2a@100 --reason 'figure 3'
      weightslab pin 3f2a
      weightslab pin 3f2a@100 --remove
    """
    opened = open_root(root, write=True)
    exp_hash, about = _about(opened, ref)
    found = (
        opened.unpin(exp_hash, **about) if remove else opened.pin(exp_hash, reason=reason, **about)
    )
    render.say(f"{found.exp_hash}: {found}")


def tag(
    ref: ReferenceArgument,
    text: TextArgument = None,
    remove: RemoveOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an experiment or a checkpoint a tag; without TEXT, list its tags.

    \b
    Examples:
      weightslab tag 3f2a@best:loss paper
      weightslab tag 3f2a
      weightslab tag 3f2a paper --remove
    """
    _say_or_list("tag", ref, text, remove=remove, where=(root, as_json))


def note(
    ref: ReferenceArgument,
    text: TextArgument = None,
    name: Annotated[
        bool, typer.Option("--name", help="TEXT is the name of the experiment.")
    ] = False,
    remove: RemoveOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a note about an experiment or a checkpoint; without TEXT, list its notes.

    \b
    Examples:
      weightslab note 3f2a@30 'the loss jumps here'
      weightslab note 3f2a baseline --name
      weightslab note 3f2a
    """
    if name:
        _name(ref, text, remove=remove, where=(root, as_json))
    else:
        _say_or_list("note", ref, text, remove=remove, where=(root, as_json))


def _name(ref: str, text: str | None, *, remove: bool, where: tuple[Any, bool]) -> None:
    root, as_json = where
    opened = open_root(root, write=text is not None or remove)
    exp_hash, about = _about(opened, ref)
    if about:
        raise ValueError("a name is that of the experiment; give a checkpoint a tag")
    current = opened.notes.read(exp_hash).name
    if remove and current is None:
        raise ObjectNotFoundError(f"{exp_hash} has no name")
    if remove:
        from weightslab.engine.repository.notes import Note

        told = Note(kind="name", exp_hash=exp_hash, text=current or "", created_at=opened.clock())
        render.say(f"{exp_hash}: {opened.notes.remove(told)}")
    elif text is not None:
        render.say(f"{exp_hash}: {opened.notes.name(exp_hash, text)}")
    elif as_json:
        render.show_json("name", {"root": str(opened.path), "exp_hash": exp_hash, "name": current})
    elif current is None:
        render.note(f"{exp_hash} has no name")
    else:
        render.say(inert(current))


def _about(root: CheckpointRoot, ref: str) -> tuple[str, dict[str, Any]]:
    exp_hash, name = chosen(root, ref)
    if name is None:
        return exp_hash, {}
    return exp_hash, {"step": name.step, "revision": name.revision if has_revision(ref) else None}


def _say_or_list(
    kind: str, ref: str, text: str | None, *, remove: bool, where: tuple[Any, bool]
) -> None:
    root, as_json = where
    opened = open_root(root, write=text is not None or remove)
    exp_hash, about = _about(opened, ref)
    if text is None and not remove:
        _list(opened, kind, exp_hash, about, as_json=as_json)
    elif remove:
        found = _find(opened, kind, exp_hash, about, text)
        render.say(f"{exp_hash}: {opened.notes.remove(found)}")
    elif kind == "tag":
        render.say(f"{exp_hash}: {opened.notes.tag(exp_hash, text or '', **about)}")
    else:
        render.say(f"{exp_hash}: {opened.notes.add(exp_hash, text or '', **about)}")


def _standing(root: CheckpointRoot, kind: str, exp_hash: str, about: dict[str, Any]) -> list[Note]:
    notes = root.notes.read(exp_hash)
    for problem in notes.damaged:
        render.warn(problem)
    found = notes.tags if kind == "tag" else notes.notes
    return [n for n in found if not about or (n.step == about["step"])]


def _find(
    root: CheckpointRoot, kind: str, exp_hash: str, about: dict[str, Any], text: str | None
) -> Note:
    if text is None:
        raise ValueError(f"say which {kind}: give its text")
    found = [n for n in _standing(root, kind, exp_hash, about) if n.text == text]
    if not found:
        raise ObjectNotFoundError(
            f"{exp_hash} has no such {kind}", hint=f"weightslab {kind} {exp_hash} lists them"
        )
    return found[-1]


def _list(
    root: CheckpointRoot, kind: str, exp_hash: str, about: dict[str, Any], *, as_json: bool
) -> None:
    found = _standing(root, kind, exp_hash, about)
    if as_json:
        plain = [
            {
                "text": n.text,
                "step": n.step,
                "revision": n.revision,
                "created_at": n.created_at.isoformat(),
            }
            for n in found
        ]
        render.show_json(kind, {"root": str(root.path), "exp_hash": exp_hash, f"{kind}s": plain})
    elif not found:
        render.note(f"{exp_hash} has no {kind}s")
    else:
        render.say(*map(str, found))
