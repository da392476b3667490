"""`weightslab samples`: the active and discarded samples of an experiment."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import (
    JsonOption,
    ReferenceArgument,
    RootOption,
    complete_reference,
    experiment_of,
)
from weightslab.cli.roots import open_root
from weightslab.cli.texts import inert, number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.root import CheckpointRoot

__all__ = ["samples"]

_MAX_SHOWN = 10
_MAX_COLUMNS = 60


def samples(
    ref: ReferenceArgument,
    uids: Annotated[
        bool, typer.Option("--uids", help="Print the active UIDs, one a line.")
    ] = False,
    discarded: Annotated[
        bool, typer.Option("--discarded", help="Print the discarded UIDs, one a line.")
    ] = False,
    against: Annotated[
        Optional[str],
        typer.Option(
            "--against",
            metavar="REF",
            help="What was added and removed since this experiment.",
            autocompletion=complete_reference,
        ),
    ] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the samples of an experiment: how many, which are discarded, which differ.

    \b
    Examples:
      weightslab samples 3f2a
      weightslab samples 3f2a --uids > uids.txt
      weightslab samples 3f2a --against 77b0
    """
    opened = open_root(root)
    exp_hash = experiment_of(opened, ref)
    found = opened.samples(exp_hash)
    if (uids or discarded) and not as_json:
        for uid in found.discarded if discarded else found:
            render.say(inert(uid))
        return
    told = _facts(exp_hash, found)
    if against is not None:
        told |= _difference(opened, found, against)
    if as_json:
        if uids:
            told["uids"] = list(found)
        if discarded:
            told["discarded"] = list(found.discarded)
        render.show_json("samples", {"root": str(opened.path), **told})
        return
    render.say_facts(_lines(told, found))


def _facts(exp_hash: str, found: SampleSet) -> dict[str, Any]:
    return {
        "exp_hash": exp_hash,
        "digest": found.digest,
        "num_active": len(found),
        "num_discarded": len(found.discarded),
    }


def _difference(root: CheckpointRoot, found: SampleSet, against: str) -> dict[str, Any]:
    other = experiment_of(root, against)
    added, removed = root.samples(other).difference(found)
    return {"against": other, "added": list(added), "removed": list(removed)}


def _lines(told: dict[str, Any], found: SampleSet) -> Iterable[tuple[str, str]]:
    yield "experiment", told["exp_hash"]
    yield "active", f"{number(told['num_active'])}  {_few(found, told['num_active'])}"
    if told["num_discarded"]:
        yield (
            "discarded",
            f"{number(told['num_discarded'])}  {_few(found.discarded, told['num_discarded'])}",
        )
    yield "digest", told["digest"]
    if "against" in told:
        yield "against", told["against"]
        for kind in ("added", "removed"):
            count = len(told[kind])
            yield kind, f"{number(count)}  {_few(told[kind], count)}".rstrip()


def _few(uids: Iterable[Any], count: int) -> str:
    """Return the first UIDs in one line."""
    shown: list[str] = []
    for uid in islice(iter(uids), _MAX_SHOWN):
        if shown and len(", ".join(shown)) > _MAX_COLUMNS:
            break
        shown.append(inert(uid))
    return ", ".join(shown) + (", ..." if count > len(shown) else "")
