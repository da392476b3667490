"""Comparing two described models: modules, code, tensors and what is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weightslab.engine.identity.treetext import entry_label, value_text
from weightslab.engine.values import Change

__all__ = ["diff_one_model"]

Entry = Mapping[str, Any]


def diff_one_model(
    old: Mapping[str, Any], new: Mapping[str, Any], *, prefix: str = ""
) -> list[Change]:
    """Return the changes between the identities of two models.

    Args:
        prefix: put before every path (`name:` in a dict of models).
    """
    return list(_ModelDiff(old, new, prefix).changes())


class _ModelDiff:
    def __init__(self, old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> None:
        self._old, self._new, self._prefix = old, new, prefix
        self._before: dict[str, Entry] = {e["path"]: e for e in old["modules"]}
        self._after: dict[str, Entry] = {e["path"]: e for e in new["modules"]}
        self._told: list[str] = []  # below these paths everything has been said

    def changes(self) -> Iterator[Change]:
        yield from self._modules()
        yield from self._code()
        yield from self._frozen()
        yield from self._order()

    # ------------------------------------------------------------ modules
    def _modules(self) -> Iterator[Change]:
        paths = [*self._after, *(path for path in self._before if path not in self._after)]
        for path in paths:
            if self._is_told(path):
                continue
            before, after = self._before.get(path), self._after.get(path)
            if before is None or after is None:
                self._told.append(path)
                yield self._come_or_gone(path, before, after)
            elif before != after:
                yield from self._changed(path, before, after)

    def _is_told(self, path: str) -> bool:
        return any(path == told or path.startswith(f"{told}.") for told in self._told)

    def _come_or_gone(self, path: str, before: Entry | None, after: Entry | None) -> Change:
        kind = "removed" if after is None else "added"
        label = entry_label(before if after is None else after)  # type: ignore[arg-type]
        return self._change(
            kind,
            path,
            f"module {path}: {label} {kind}",
            old=None if before is None else label,
            new=None if after is None else label,
        )

    def _changed(self, path: str, before: Entry, after: Entry) -> Iterator[Change]:
        old_label, new_label = entry_label(before), entry_label(after)
        replaced = before.get("class") != after.get("class") or "same_as" in {*before, *after}
        if replaced or (old_label != new_label and before.get("kind") == "library"):
            if path:
                self._told.append(path)
            name = path or "the model"
            if old_label == new_label:  # two classes of one name: say where they come from
                old_label, new_label = str(before.get("class")), str(after.get("class"))
            text = f"{name}: {old_label} became {new_label}"
            yield self._change("replaced", path, text, old=old_label, new=new_label)
            return
        yield from self._values(path, before["attributes"], after["attributes"])
        yield from self._tensors(path, before, after)
        yield from self._class_values(before, after)
        if before.get("hooks") != after.get("hooks"):
            yield self._change("changed", path, f"hooks of {path or 'the model'} changed")

    def _values(
        self, path: str, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> Iterator[Change]:
        for name in sorted({*before, *after}):
            if before.get(name) == after.get(name) and (name in before) == (name in after):
                continue
            where = f"{path}.{name}" if path else name
            old = value_text(before[name]) if name in before else "not set"
            new = value_text(after[name]) if name in after else "not set"
            text = f"{where}: {old} -> {new}" if old != new else f"{where} changed"
            yield self._change("changed", where, text, old=before.get(name), new=after.get(name))

    def _class_values(self, before: Entry, after: Entry) -> Iterator[Change]:
        """Report class attributes; methods are reported by their label, once for all modules."""
        place = f"class {after.get('class')}"
        if self._is_told(place) or before.get("code") == after.get("code"):
            return
        self._told.append(place)
        old, new = (_plain_members(entry.get("code", ())) for entry in (before, after))
        yield from self._values(str(after["class"]), old, new)

    # ------------------------------------------------------------ tensors
    def _tensors(self, path: str, before: Entry, after: Entry) -> Iterator[Change]:
        for kind in ("parameters", "buffers"):
            old = {name: spec for name, *spec in before.get(kind, ())}
            new = {name: spec for name, *spec in after.get(kind, ())}
            for name in [*new, *(name for name in old if name not in new)]:
                if old.get(name) == new.get(name):
                    continue
                where = f"{path}.{name}" if path else name
                text = f"{where}: {_spec_text(old.get(name))} -> {_spec_text(new.get(name))}"
                yield self._change("changed", where, text, old=old.get(name), new=new.get(name))

    # ------------------------------------------------------------ code
    def _code(self) -> Iterator[Change]:
        before, after = self._old["code"], self._new["code"]
        for label in sorted({*before, *after}):
            if before.get(label) == after.get(label):
                continue
            verb = "changed"
            if label not in before or label not in after:
                verb = "is now used" if label in after else "is no longer used"
                owner = label.rpartition(".")[0]
                if owner in self._gone_or_new_classes():
                    continue
            kind = {"is now used": "added", "is no longer used": "removed"}.get(verb, "changed")
            yield self._change(
                kind, label, f"{_code_name(label)} {verb}",
                old=before.get(label), new=after.get(label),
            )  # fmt: skip

    def _gone_or_new_classes(self) -> set[str]:
        old = {str(entry.get("class")) for entry in self._before.values()}
        new = {str(entry.get("class")) for entry in self._after.values()}
        return old ^ new

    # ------------------------------------------------------------ frozen, order
    def _frozen(self) -> Iterator[Change]:
        old, new = set(self._old["frozen"]), set(self._new["frozen"])
        for word, names in (("frozen", new - old), ("unfrozen", old - new)):
            same = {n for n in names if n in self._tensor_names(self._before)}
            told: list[str] = []
            for path in self._after:
                if any(path.startswith(f"{t}.") or not t for t in told):
                    continue
                inside = self._tensor_names(self._after, path)
                if inside and inside <= same:
                    told.append(path)
                    yield self._change("changed", path, f"{path or 'the whole model'} {word}")
                    same -= inside
                    continue
                single = sorted(n for n in same & inside if n.rpartition(".")[0] == path)
                for name in single:
                    yield self._change("changed", name, f"{name} {word}")
                same -= set(single)

    @staticmethod
    def _tensor_names(entries: Mapping[str, Entry], below: str = "") -> set[str]:
        return {
            f"{path}.{name}" if path else name
            for path, entry in entries.items()
            if not below or path == below or path.startswith(f"{below}.")
            for name, spec in entry.get("parameters", ())
            if isinstance(spec, list)
        }

    def _order(self) -> Iterator[Change]:
        old = [path for path in self._before if path in self._after]
        new = [path for path in self._after if path in self._before]
        if old != new:
            first = next(b for a, b in zip(old, new, strict=True) if a != b)
            yield self._change("changed", first, f"order of modules changed, from {first} on")

    def _change(
        self, kind: str, path: str, text: str, *, old: Any = None, new: Any = None
    ) -> Change:
        return Change(
            component="model",
            kind=kind,
            path=f"{self._prefix}{path}",
            old=old,
            new=new,
            text=f"{self._prefix}{text}",
        )


def _plain_members(code: Any) -> dict[str, Any]:
    """Return class attributes that are data: name -> value, the most derived class first."""
    found: dict[str, Any] = {}
    for _, members in code:
        for name, value in members.items():
            is_code = isinstance(value, dict) and next(iter(value), "") in (
                "$function",
                "$property",
                "$staticmethod",
                "$classmethod",
            )
            if not is_code:
                found.setdefault(name, value)
    return found


def _code_name(label: str) -> str:
    if label.startswith("class "):
        return label
    owner, _, name = label.rpartition(".")
    return f"{name} of {owner}" if owner else f"function {name}"


def _spec_text(spec: Any) -> str:
    """Return `float32 [10, 128]` for a tensor spec."""
    if spec is None:
        return "none"
    content = spec[0]
    if isinstance(content, dict):
        return f"same as {content['same_as']}"
    if isinstance(content, list) and len(content) >= 2 and isinstance(content[0], str):  # noqa: PLR2004
        return f"{content[0]} {content[1]}" + (" with hooks" if len(content) > 2 else "")  # noqa: PLR2004
    return value_text(content) + ("" if len(spec) == 1 else ", not persistent")
