"""What changed between two descriptions, one line per change, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.configdiff import diff_configs, diff_excluded
from weightslab.engine.identity.entrydiff import value_change
from weightslab.engine.identity.modeldiff import ModelSide, diff_one_model
from weightslab.engine.values import Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightslab.engine.identity.samples import SampleSet

__all__ = ["diff_configs", "diff_excluded", "diff_models", "diff_samples"]

MAX_LISTED_UIDS: Final = 1000  # a change is a few lines of JSON, not a second copy of the data


def diff_models(old_document: Mapping[str, Any], new_document: Mapping[str, Any]) -> list[Change]:
    """Return what makes two architecture documents differ; each change once, outermost first.

    Args:
        old_document, new_document: `ModelDescription.document`, or read back from JSON.
    """
    old = dict(old_document["identity"]["models"])
    new = dict(new_document["identity"]["models"])
    changes = list(_scheme(old_document["identity"], new_document["identity"]))
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            changes.append(_whole_model(name, name in new))
            continue
        sides = (
            ModelSide(old[name], old_document, name=name),
            ModelSide(new[name], new_document, name=name),
        )
        changes.extend(diff_one_model(*sides, prefix=f"{name}:" if name else ""))
    return changes


def _scheme(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Tell of everything in the identity besides the models: the rules by which they are read."""
    for key in sorted((old.keys() | new.keys()) - {"models"}):
        if old.get(key) != new.get(key):
            text = f"{key} of the description: {value_change(old.get(key), new.get(key))}"
            yield Change(
                component="model",
                kind="changed",
                path=key,
                old=old.get(key),
                new=new.get(key),
                text=text,
            )


def _whole_model(name: str, added: bool) -> Change:
    kind = "added" if added else "removed"
    return Change(
        component="model", kind=kind, path=name, text=f"model {name or '(single)'} {kind}"
    )


def diff_samples(old: SampleSet, new: SampleSet) -> list[Change]:
    """Return one change that counts the samples added and discarded; none if the sets are equal.

    Two sets of the same samples whose tags or labels count, and differ, are a change without UIDs.
    `.old` is `{"count", "discarded": [...]}`, `.new` is `{"count", "added": [...]}`, with up to 1000
    UIDs each.
    """
    added, removed = old.difference(new)
    if old.digest == new.digest:
        return []
    if not len(added) and not len(removed):
        names = sorted({*old.facets, *new.facets})
        text = f"the same samples, but other {' or '.join(names)}"
    elif len(added) and len(removed):
        text = f"{_samples(len(added))} added, {len(removed):,} discarded"
    elif len(added):
        text = f"{_samples(len(added))} added"
    else:
        text = f"{_samples(len(removed))} discarded"
    return [
        Change(
            component="data",
            kind="changed",
            path="samples",
            old={"count": len(old), "discarded": _first(removed)},
            new={"count": len(new), "added": _first(added)},
            text=text,
        )
    ]


def _samples(count: int) -> str:
    return f"{count:,} sample" if count == 1 else f"{count:,} samples"


def _first(samples: SampleSet) -> list[int | str]:
    return [uid for uid, _ in zip(samples, range(MAX_LISTED_UIDS), strict=False)]
