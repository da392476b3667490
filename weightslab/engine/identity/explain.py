"""What changed between two descriptions, one line per change, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.config import DEFAULT_EXCLUDED, flatten, without
from weightslab.engine.identity.modeldiff import diff_one_model
from weightslab.engine.identity.plain import plain_tree
from weightslab.engine.identity.treetext import value_text
from weightslab.engine.values import Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weightslab.engine.identity.samples import SampleSet

__all__ = ["diff_configs", "diff_models", "diff_samples"]

MAX_LISTED_UIDS: Final = 1000  # a change is a few lines of JSON, not a second copy of the data


def diff_models(old_document: Mapping[str, Any], new_document: Mapping[str, Any]) -> list[Change]:
    """Return what makes two architecture documents differ; each change once, outermost first.

    Args:
        old_document, new_document: `ModelDescription.document`, or read back from JSON.
    """
    old = dict(old_document["identity"]["models"])
    new = dict(new_document["identity"]["models"])
    changes: list[Change] = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            changes.append(_whole_model(name, name in new))
            continue
        changes.extend(diff_one_model(old[name], new[name], prefix=f"{name}:" if name else ""))
    return changes


def _whole_model(name: str, added: bool) -> Change:
    kind = "added" if added else "removed"
    return Change(
        component="model", kind=kind, path=name, text=f"model {name or '(single)'} {kind}"
    )


def diff_configs(
    old_plain: Mapping[Any, Any], new_plain: Mapping[Any, Any], exclude: Sequence[str] = ()
) -> list[Change]:
    """Return one change per dotted key whose value differs, sorted by key.

    Args:
        old_plain, new_plain: `ConfigDescription.plain`.
        exclude: dotted paths left out, besides the defaults.
    """
    hidden = frozenset((*DEFAULT_EXCLUDED, *exclude))
    old = dict(flatten(without(dict(old_plain), hidden)))
    new = dict(flatten(without(dict(new_plain), hidden)))
    return list(_config_changes(old, new))


def _config_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if key not in old:
            kind, text = "added", f"{key} added: {value_text(after)}"
        elif key not in new:
            kind, text = "removed", f"{key} removed (was {value_text(before)})"
        elif plain_tree(before) == plain_tree(after):
            continue
        else:
            kind, text = "changed", f"{key}: {value_text(before)} -> {value_text(after)}"
        yield Change(component="config", kind=kind, path=key, old=before, new=after, text=text)


def diff_samples(old: SampleSet, new: SampleSet) -> list[Change]:
    """Return one change that counts the samples added and discarded; none if the sets are equal.

    `.old` is `{"count", "discarded": [...]}`, `.new` is `{"count", "added": [...]}`, with up to 1000
    UIDs each.
    """
    added, removed = old.difference(new)
    if not len(added) and not len(removed):
        return []
    if len(added) and len(removed):
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
