"""What changed in one module: attributes, tensors, ties, hooks, parametrizations, pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.facts import Fact
from weightslab.engine.identity.treetext import entry_label, short_class, value_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightslab.engine.identity.moduletree import Entry, Node

__all__ = ["EntryChanges", "compare_entries", "value_change"]

_PLAIN_SPEC: Final = 2  # dtype, shape; hooks come after
_TOLD_ELSEWHERE: Final = frozenset({"path", "kind", "class", "code", "bases", "same_as"})
_TOLD_HERE: Final = frozenset({"attributes", "parameters", "buffers", "hooks"})
_HOOK_WORDS: Final = {
    "forward_hooks": "forward hook",
    "forward_pre_hooks": "forward pre-hook",
    "backward_hooks": "backward hook",
    "backward_pre_hooks": "backward pre-hook",
}


@dataclass(frozen=True, slots=True)
class _Part:
    """One finding in a module: `name` is a tensor or attribute, "" for the module itself."""

    name: str
    text: str
    old: Any = None
    new: Any = None
    shape_only: bool = False


@dataclass(slots=True)
class EntryChanges:
    """The differences of one module.

    Attributes:
        facts: what changed.
        dtypes: full name of a tensor -> (old dtype, new dtype), where nothing else of it changed.
        appeared: attributes that are on one side only; perhaps only because the code that reads
            them is.
    """

    facts: list[Fact] = field(default_factory=list)
    dtypes: dict[str, tuple[str, str]] = field(default_factory=dict)
    appeared: list[Fact] = field(default_factory=list)


def compare_entries(old: Node, new: Node, before: Entry) -> EntryChanges:
    """Compare two entries of one module.

    Args:
        before: the entry of `old`, its references written as the new model names things.
    """
    found = EntryChanges()
    if not new.is_module:
        found.facts += _references(new, before)
        return found
    labels = _labels(before, new.entry)
    attributes = [] if labels else _attributes(before, new, found)
    special, consumed = _special(old, new, before)
    tensors = _tensors(before, new, consumed, found)
    others = [*special, *_hooks(before, new.entry, consumed), *_unknown(before, new.entry)]
    if labels:
        text = f": {labels[0]} became {labels[1]}"
        found.facts.append(
            Fact(kind="replaced", path=new.path, text=text, old=labels[0], new=labels[1])
        )
        tensors = [part for part in tensors if not part.shape_only]
    if tensors:
        found.facts += _one(new.path, [*attributes, *tensors, *others])
    else:
        found.facts += [fact for part in (*attributes, *others) for fact in _one(new.path, [part])]
    return found


def value_change(old: Any, new: Any) -> str:
    """Return `2 -> 3`; says so if the difference lies too deep to be shown in a line."""
    before, after = value_text(old), value_text(new)
    return f"{before} -> {after}" if before != after else f"{before} changed inside"


def _one(path: str, parts: list[_Part]) -> list[Fact]:
    """Make one finding of all parts."""
    if not parts:
        return []
    if len(parts) > 1:
        text = ": " + ", ".join(f"{p.name} {p.text}".strip() for p in parts)
        old, new = ({p.name: getattr(p, side) for p in parts if p.name} for side in ("old", "new"))
        return [Fact(kind="changed", path=path, text=text, old=old, new=new)]
    part = parts[0]
    where = ".".join(filter(None, (path, part.name)))
    return [Fact(kind="changed", path=where, text=f": {part.text}", old=part.old, new=part.new)]


def _references(new: Node, before: Entry) -> list[Fact]:
    old_target, target = before.get("same_as"), new.entry.get("same_as")
    if old_target == target:
        return []
    part = _Part("", f"same as {old_target or 'the model'} -> same as {target or 'the model'}")
    return _one(new.path, [part])


def _labels(before: Entry, after: Entry) -> tuple[str, str] | None:
    """Return both labels of a library layer that is another one now."""
    if before["kind"] != "library" or before["class"] != after["class"]:
        return None
    labels = entry_label(before), entry_label(after)
    return None if labels[0] == labels[1] else labels


def _attributes(before: Entry, new: Node, found: EntryChanges) -> list[_Part]:
    old_values, new_values = before["attributes"], new.entry["attributes"]
    parts = []
    for name in sorted({*old_values, *new_values}):
        old, now = old_values.get(name), new_values.get(name)
        if name in old_values and name in new_values:
            if _differ(old, now):
                parts.append(_Part(name, value_change(old, now), old, now))
            continue
        text = (
            f"not set -> {value_text(now)}"
            if name in new_values
            else f"{value_text(old)} -> not set"
        )
        if before["kind"] == "library":
            parts.append(_Part(name, text, old, now))
        else:
            found.appeared += _one(new.path, [_Part(name, text, old, now)])
    return parts


def _differ(old: Any, new: Any) -> bool:
    """Compare as the identity does: 1, 1.0 and True are three values."""
    return repr(old) != repr(new)


# ---------------------------------------------------------------- parametrized, pruned
def _special(old: Node, new: Node, before: Entry) -> tuple[list[_Part], set[str]]:
    """Return what was done to weights as a whole, and the names that are explained by it."""
    parts: list[_Part] = []
    consumed: set[str] = set()
    for one, other, text in (
        (old, new, "parametrized by"),
        (new, old, "no longer parametrized by"),
    ):
        if "parametrizations" in other.children and "parametrizations" not in one.children:
            for name, chain in other.children["parametrizations"].children.items():
                how = [short_class(str(c.entry.get("class"))) for c in chain.children.values()]
                parts.append(_Part(name, f"{text} {', '.join(how)}"))
                consumed.add(name)
    for has, lacks, text in (
        (new.entry, before, "pruned by"),
        (before, new.entry, "no longer pruned by"),
    ):
        for name in _pruned(has) - _pruned(lacks):
            parts.append(_Part(name, f"{text} {_pruner(has, name)}"))
            consumed |= {name, f"{name}_orig", f"{name}_mask"}
    return parts, consumed


def _pruned(entry: Entry) -> set[str]:
    masks = {name for name, *_ in entry.get("buffers", ())}
    names = [name for name, *_ in entry.get("parameters", ())]
    return {n[:-5] for n in names if n.endswith("_orig") and f"{n[:-5]}_mask" in masks}


def _pruner(entry: Entry, name: str) -> str:
    for _, hook in entry.get("hooks", ()):
        if _hook_tensor(hook) == name:
            return short_class(hook["$object"])
    return "a mask"


def _hook_tensor(hook: Any) -> str | None:
    """Return the tensor that a pruning method belongs to."""
    state = hook.get("$state") if isinstance(hook, dict) else None
    name = state.get("_tensor_name") if isinstance(state, dict) else None
    return name if isinstance(name, str) else None


# ---------------------------------------------------------------- tensors
def _tensors(before: Entry, new: Node, consumed: set[str], found: EntryChanges) -> list[_Part]:
    parts = []
    for kind in ("parameters", "buffers"):
        old_specs = {name: spec for name, *spec in before.get(kind, ())}
        new_specs = {name: spec for name, *spec in new.entry.get(kind, ())}
        for name in [*new_specs, *(name for name in old_specs if name not in new_specs)]:
            old, now = old_specs.get(name), new_specs.get(name)
            if name in consumed or old == now:
                continue
            dtypes = _dtypes(old, now)
            if dtypes:
                found.dtypes[f"{new.path}.{name}" if new.path else name] = dtypes
            else:
                parts.append(_tensor_part(name, old, now))
        common = [n for n in old_specs if n in new_specs]
        if common != [n for n in new_specs if n in old_specs]:
            parts.append(
                _Part("", f"order of its {kind} changed", list(old_specs), list(new_specs))
            )
    return parts


def _dtypes(old: Any, new: Any) -> tuple[str, str] | None:
    """Return both dtypes if nothing else of a tensor differs."""
    if old is None or new is None or old[1:] != new[1:]:
        return None
    one, other = _dtype_and_shape(old[0]), _dtype_and_shape(new[0])
    if one is None or other is None or one[0] == other[0] or one[1:] != other[1:]:
        return None
    return str(one[0]), str(other[0])


def _dtype_and_shape(content: Any) -> list[Any] | None:
    if not isinstance(content, list):
        return None
    # a constant has the digest of its values beside its spec, which another dtype changes too
    return content[0] if isinstance(content[0], list) else content


def _tensor_part(name: str, old: Any, new: Any) -> _Part:
    was_tied, is_tied = _tied_to(old), _tied_to(new)
    if is_tied and not was_tied:
        return _Part(name, f"now tied to {is_tied}", old, new)
    if was_tied and not is_tied:
        return _Part(name, f"no longer tied to {was_tied}", old, new)
    texts = [_spec_text(old), _spec_text(new)]
    if old is None or new is None:
        text = f"added, {texts[1]}" if old is None else f"removed (was {texts[0]})"
        return _Part(name, text, old, new)
    text = f"{texts[0]} -> {texts[1]}" if texts[0] != texts[1] else "constant values changed"
    plain = [spec is None or spec[0] is None or _is_plain(spec) for spec in (old, new)]
    return _Part(name, text, old, new, shape_only=all(plain))


def _is_plain(spec: Any) -> bool:
    return len(spec) == 1 and isinstance(spec[0], list) and len(spec[0]) == _PLAIN_SPEC


def _tied_to(spec: Any) -> str | None:
    content = spec[0] if spec else None
    return content.get("same_as") if isinstance(content, dict) else None


def _spec_text(spec: Any) -> str:
    """Return `float32 [10, 128]` for a tensor spec."""
    if spec is None or spec[0] is None:
        return "none"
    content, note = spec[0], "" if len(spec) == 1 else ", not persistent"
    if isinstance(content, dict):
        return f"same as {content['same_as']}"
    if isinstance(content[0], list):  # a constant: its spec, and the digest of its values
        content = content[0]
    hooks = " with hooks" if len(content) > _PLAIN_SPEC else ""
    return f"{content[0]} {content[1]}{hooks}{note}"


# ---------------------------------------------------------------- hooks, and what else there is
def _hooks(before: Entry, after: Entry, consumed: set[str]) -> list[_Part]:
    old, new = (
        [h for h in e.get("hooks", ()) if _hook_tensor(h[1]) not in consumed]
        for e in (before, after)
    )
    if old == new:
        return []
    gone, come = [h for h in old if h not in new], [h for h in new if h not in old]
    parts = [_Part("", f"{_hook_text(h)} removed", old=h) for h in gone]
    parts += [_Part("", f"{_hook_text(h)} added", new=h) for h in come]
    return parts or [_Part("", "hooks in another order or number", old, new)]


def _hook_text(hook: Any) -> str:
    kind, what = hook
    return f"{_HOOK_WORDS.get(kind, kind)} {value_text(what)}"


def _unknown(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[_Part]:
    """Tell of parts of an entry that this version has no words for."""
    for key in sorted({*before, *after} - _TOLD_ELSEWHERE - _TOLD_HERE):
        if _differ(before.get(key), after.get(key)):
            yield _Part(key, value_change(before.get(key), after.get(key)))
