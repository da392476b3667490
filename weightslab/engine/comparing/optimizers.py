"""Optimizers as they are stored: class, groups, settings and how far they are. Free of torch."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import DigestMismatchError
from weightslab.engine.jsonform import decode
from weightslab.engine.repository.catalog import map_file

if TYPE_CHECKING:
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["optimizer_facts"]

_TENSOR: Final = "$tensor"
_NUMBERS: Final = {"F32": "<f", "F64": "<d", "I64": "<q", "I32": "<i"}
_MAX_STEPS: Final = 8  # parameters that have been stepped in a different way; more is no summary


def optimizer_facts(store: Store, manifest: Manifest) -> dict[str, Any]:
    """Return dotted key -> value of the optimizers of a checkpoint, none where none was saved.

    `adam.class`, `adam.groups[0].lr`, `adam.groups[0].num_params`, `adam.num_states`, and `adam.step`,
    the step that the optimizer itself has counted (a list where parameters differ).

    Raises: FormatError, IntegrityError.
    """
    tree = manifest.state.get("training")
    saved = tree.get("optimizer") if isinstance(tree, dict) else None
    if saved is None:
        return {}
    facts: dict[str, Any] = {}
    for name, item in decode(saved, leaf=_leaf, path="optimizer").items():
        state = item.get("state") if isinstance(item, dict) else None
        if not isinstance(state, dict):
            continue
        facts[f"{name}.class"] = item.get("class")
        for at, group in enumerate(state.get("param_groups", ())):
            for key, value in group.items():
                if key == "params":
                    facts[f"{name}.groups[{at}].num_params"] = len(value)
                else:
                    facts[f"{name}.groups[{at}].{key}"] = _plain(store, manifest, value)
        entries = state.get("state", {})
        facts[f"{name}.num_states"] = len(entries)
        steps = {repr(e["step"]): e["step"] for e in entries.values() if "step" in e}
        numbers = {_plain(store, manifest, v) for v in _few(manifest, steps.values())}
        if numbers:
            ordered = sorted(numbers, key=lambda n: (isinstance(n, str), n))
            facts[f"{name}.step"] = ordered[0] if len(ordered) == 1 else ordered[:_MAX_STEPS]
    return facts


class _Reference(str):
    """Name of a tensor, in the place of the tensor."""

    __slots__ = ()


def _leaf(tag: str, content: Any, _: str) -> Any:
    if tag == _TENSOR:
        return _Reference(content)
    return str(content) if tag.startswith("$torch.") else NotImplemented


def _few(manifest: Manifest, values: Any) -> list[Any]:
    """Leave out tensors that have the bytes of another one."""
    found: dict[str, Any] = {}
    for value in values:
        record = (
            manifest.tensors.get(_key(manifest, value)) if isinstance(value, _Reference) else None
        )
        found.setdefault(record.digest if record else repr(value), value)
    return list(found.values())


def _key(manifest: Manifest, name: str) -> str:
    key = f"training/{name}"
    return manifest.aliases.get(key, key)


def _plain(store: Store, manifest: Manifest, value: Any) -> Any:
    """Return a setting, or the number that a small tensor holds."""
    if not isinstance(value, _Reference):
        return tuple(value) if isinstance(value, list) else value
    record = manifest.tensors.get(_key(manifest, value))
    form = _NUMBERS.get(record.dtype) if record is not None else None
    if record is None or form is None or record.size_bytes != struct.calcsize(form):
        return f"tensor {value}"
    view = map_file(store, manifest.name, record.file)
    data = view[record.offset : record.offset + record.size_bytes]
    if digest_bytes(data, algorithm=record.digest.partition(":")[0]) != record.digest:
        raise DigestMismatchError(f"training/{value} does not have the digest that was recorded")
    number = struct.unpack(form, data)[0]
    return int(number) if number == int(number) else number
