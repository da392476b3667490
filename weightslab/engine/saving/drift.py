"""Drift: what a model has become since its experiment hash was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.errors import StateMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_digest", "check_outline"]

_SHOWN = 3


def check_outline(expected: Mapping[str, str], found: Mapping[str, str], *, exp_hash: str) -> None:
    """Raise if the outline of the model to be saved is not that of the experiment.

    Args:
        expected: path -> text, taken when the experiment hash was.
        found: the same of the model to be saved.
        exp_hash: the current experiment.
    Raises: StateMismatchError naming what was added, removed and changed.
    """
    if expected == found:
        return
    missing = [path for path in expected if path not in found]
    unexpected = [path for path in found if path not in expected]
    changed = {
        path: _difference(text, found[path])
        for path, text in expected.items()
        if found.get(path, text) != text
    }
    lines = [f"{p or '(model)'}: {text}" for p, text in changed.items()]
    lines += [f"{p or '(model)'} is gone" for p in missing]
    lines += [f"{p or '(model)'} is new" for p in unexpected]
    if not lines:
        lines = ["the order of the modules changed"]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    raise StateMismatchError(
        f"the model is not the one of experiment {exp_hash}: {'; '.join(lines[:_SHOWN])}{more}",
        missing=missing,
        unexpected=unexpected,
        shape_changes=changed,
        hint="call update_experiment_hash(model=...) after changing a model, then save",
        context={"exp_hash": exp_hash},
    )


def _difference(old: str, new: str) -> str:
    """Return the facts of an outline text that differ, old -> new."""
    before, after = (list(dict.fromkeys(text.split("; "))) for text in (old, new))
    gone = "; ".join(fact for fact in before if fact not in after)
    come = "; ".join(fact for fact in after if fact not in before)
    return f"{gone or '(not set)'} -> {come or '(not set)'}"


def check_digest(expected: str | None, found: str | None, *, what: str, exp_hash: str) -> None:
    """Raise if a component is not the one of the experiment; None on either side says nothing.

    Raises: StateMismatchError.
    """
    if expected is not None and found is not None and expected != found:
        raise StateMismatchError(
            f"the {what} is not the one of experiment {exp_hash}: its digest is {found}, not {expected}",
            hint="call update_experiment_hash() after changing it, then save",
            context={"exp_hash": exp_hash},
        )
