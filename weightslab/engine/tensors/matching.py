"""Which tensors of one model are those of another, by what they look like. Free of torch.

Modules are paired, not single tensors: first those that have their path, then those that can only be one
pair. Where that is open, nothing is paired.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightslab.engine.values import TensorRecord

__all__ = ["Spec", "classes_of", "match_tensors", "same_bytes"]


class Spec(NamedTuple):
    """What a tensor looks like: safetensors dtype, and shape."""

    dtype: str
    shape: tuple[int, ...]


def same_bytes(one: TensorRecord, other: TensorRecord) -> bool:
    """Tell whether two records are of equal tensors: equal digest, dtype and shape."""
    return (one.digest, one.dtype, one.shape) == (other.digest, other.dtype, other.shape)


def match_tensors(
    old: Mapping[str, Spec],
    new: Mapping[str, Spec],
    old_classes: Mapping[str, str] | None = None,
    new_classes: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Pair the tensors of two models.

    1. Modules of one path whose tensors all fit (of those that both have) are paired by name.
    2. A renamed container, where just one went and one came, keeps what is in it.
    3. Of the other modules those are paired that are alike (class, names, shapes, dtypes) and can only be
       meant so: there is one on either side, or as many under one prefix that changed.
    4. What is left is paired by name and shape, tensor by tensor.

    Args:
        old, new: name -> what it looks like, in the order of the model.
        old_classes, new_classes: module path -> class name, where known.
    Returns: new name -> old name by name, and the same by structure. Each old name is used once.
    """
    matcher = _Matcher(_Side(old, old_classes or {}), _Side(new, new_classes or {}))
    matcher.by_path()
    matcher.by_container()
    matcher.by_likeness()
    matcher.by_tensor()
    return matcher.named, matcher.found


def classes_of(document: Mapping[str, Any], model: str = "") -> dict[str, str]:
    """Return module path -> name of its class, of a stored architecture.

    Args:
        document: as `read_architecture` returns it.
        model: name in a dict of models.
    """
    models = document.get("identity", {}).get("models", [])
    for name, identity in dict(models).items():
        if name == model:
            entries = identity.get("modules", ())
            return {
                e["path"]: short(e["class"]) for e in entries if isinstance(e.get("class"), str)
            }
    return {}


def short(name: str) -> str:
    """Return the last part of a class name: libraries move classes between their modules."""
    return name.rpartition(".")[2]


class _Side:
    def __init__(self, specs: Mapping[str, Spec], classes: Mapping[str, str]) -> None:
        self.specs, self.classes = specs, classes
        self.modules: dict[str, dict[str, Spec]] = {}
        for name, spec in specs.items():
            path, _, local = name.rpartition(".")
            self.modules.setdefault(path, {})[local] = spec
        self.left = dict.fromkeys(self.modules)  # a set that keeps its order

    def containers(self) -> set[str]:
        """Return the outermost paths below which no module is paired."""
        kept = {
            around for path in self.modules if path not in self.left for around in _around(path)
        }
        found = set()
        for path in self.left:
            found.add(next((around for around in _around(path) if around not in kept), path))
        return found


class _Matcher:
    def __init__(self, old: _Side, new: _Side) -> None:
        self.old, self.new = old, new
        self.named: dict[str, str] = {}
        self.found: dict[str, str] = {}

    def _pair(self, before: str, after: str, pairs: dict[str, str]) -> None:
        ours, theirs = self.new.modules[after], self.old.modules[before]
        for local in ours:
            if local in theirs and ours[local].shape == theirs[local].shape:
                pairs[_joined(after, local)] = _joined(before, local)
        self.old.left.pop(before, None)
        self.new.left.pop(after, None)

    def by_path(self) -> None:
        for path in list(self.new.left):
            theirs, ours = self.old.modules.get(path, {}), self.new.modules[path]
            shared = [local for local in ours if local in theirs]
            if shared and all(ours[name].shape == theirs[name].shape for name in shared):
                self._pair(path, path, self.named)

    def by_container(self) -> None:
        gone, come = self.old.containers(), self.new.containers()
        if len(gone) == len(come) == 1:
            self._substitute(gone.pop(), come.pop())

    def _substitute(self, before: str, after: str) -> None:
        for path in list(self.old.left):
            if _is_below(path, before):
                there = _joined(after, path[len(before) :].lstrip("."))
                if there in self.new.left and self._alike(path, there):
                    self._pair(path, there, self.found)

    def _alike(self, before: str, after: str) -> bool:
        classes = self.old.classes.get(before), self.new.classes.get(after)
        same_class = None in classes or classes[0] == classes[1]
        return same_class and self.old.modules[before] == self.new.modules[after]

    def by_likeness(self) -> None:
        groups: list[tuple[list[str], list[str]]] = []
        for after in self.new.left:
            for befores, afters in groups:
                if befores and self._alike(befores[0], after):
                    afters.append(after)
                    break
            else:
                groups.append(([p for p in self.old.left if self._alike(p, after)], [after]))
        uses = Counter(path for befores, _ in groups for path in befores)
        for befores, afters in groups:
            if len(befores) != len(afters) or any(uses[path] > 1 for path in befores):
                continue
            for pair in _only_pairing(befores, afters):
                self._pair(*pair, self.found)

    def by_tensor(self) -> None:
        taken = {*self.named.values(), *self.found.values()}
        for name, spec in self.new.specs.items():
            if name in self.named or name in self.found or name in taken:
                continue
            there = self.old.specs.get(name)
            if there is not None and there.shape == spec.shape:
                self.named[name] = name


def _only_pairing(befores: list[str], afters: list[str]) -> list[tuple[str, str]]:
    """Pair paths by the one change of a prefix that leads from all of one list to all of the other."""
    if len(befores) == 1:
        return [(befores[0], afters[0])]
    for gone, come in dict.fromkeys(_renaming(befores[0], after) for after in afters):
        led = {_joined(come, path[len(gone) :].lstrip(".")): path for path in befores}
        if led.keys() == set(afters) and all(_is_below(path, gone) for path in befores):
            return [(before, after) for after, before in led.items()]  # no other can lead there
    return []


def _is_below(path: str, around: str) -> bool:
    return not around or path == around or path.startswith(f"{around}.")


def _renaming(before: str, after: str) -> tuple[str, str]:
    """Return what differs between two paths once their common end is taken off."""
    one, other = before.split("."), after.split(".")
    while one and other and one[-1] == other[-1]:
        one.pop()
        other.pop()
    return ".".join(one), ".".join(other)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _around(path: str) -> Iterable[str]:
    """Return the paths of the modules around a module and its own, outermost first; not the model."""
    steps = path.split(".")
    return [".".join(steps[: length + 1]) for length in range(len(steps))]
