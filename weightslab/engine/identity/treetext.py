"""The module tree as text for people: layers with their arguments, parameter counts, frozen."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

__all__ = ["entry_label", "render_model", "short_class", "value_text"]

_ARROWS: Final[Mapping[str, tuple[str, str]]] = {
    "torch.nn.Linear": ("in_features", "out_features"),
    "torch.nn.Conv1d": ("in_channels", "out_channels"),
    "torch.nn.Conv2d": ("in_channels", "out_channels"),
    "torch.nn.Conv3d": ("in_channels", "out_channels"),
    "torch.nn.ConvTranspose2d": ("in_channels", "out_channels"),
    "torch.nn.Embedding": ("num_embeddings", "embedding_dim"),
    "torch.nn.LSTM": ("input_size", "hidden_size"),
    "torch.nn.GRU": ("input_size", "hidden_size"),
}
# derived by the constructor, or the same for all but special layers: noise for the eye
_QUIET: Final[Mapping[str, Any]] = {
    "stride": [1, 1],
    "padding": [0, 0],
    "dilation": [1, 1],
    "output_padding": [0, 0],
    "transposed": False,
}
# left out of the identity as defaults, and still what people look for first
_SHOWN_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    f"torch.nn.{name}": {"p": 0.5} for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d")
}
_MAX_TEXT: Final = 60
_MAX_ITEMS: Final = 8
_MAX_DEPTH: Final = 6
# what stands around a function: the function says more
_AROUND: Final = frozenset({"$method", "$partial", "$cached", "$staticmethod", "$classmethod"})
_NAMES: Final = frozenset({"$name", "$function", "$class", "$module", "$enum", "$bytes", "$number"})
_MAX_BITS: Final = 200  # longer than any text that is shown


def render_model(identity: Mapping[str, Any]) -> str:
    """Return one line per module, indented by depth, and totals; ends with a newline."""
    lines: list[str] = []
    for name, model in identity["models"]:
        if name:
            lines.append(f"[{name}]")
        frozen = set(model["frozen"])
        total = trainable = 0
        for entry in model["modules"]:
            count, free = _count(entry, frozen)
            total, trainable = total + count, trainable + free
            lines.append(_line(entry, count, free))
        lines.append(f"{total:,} parameters, {trainable:,} trainable")
    return "\n".join(lines) + "\n"


def _line(entry: Mapping[str, Any], count: int, free: int) -> str:
    path = entry["path"]
    depth = path.count(".") + 1 if path else 0
    name = path.rpartition(".")[2]
    head = "  " * depth + (f"{name}: " if name else "") + entry_label(entry)
    notes = []
    if count:
        notes.append(f"{count:,}")
        if free < count:
            notes.append("frozen" if not free else f"{free:,} trainable")
    return head + (f"  [{', '.join(notes)}]" if notes else "")


def _count(entry: Mapping[str, Any], frozen: set[str]) -> tuple[int, int]:
    total = free = 0
    for name, spec in entry.get("parameters", ()):
        if not isinstance(spec, list):
            continue
        size = math.prod(spec[1])
        total += size
        if (f"{entry['path']}.{name}" if entry["path"] else name) not in frozen:
            free += size
    return total, free


def short_class(name: str) -> str:
    """Return the last part of a class name."""
    return name.rpartition(".")[2]


def entry_label(entry: Mapping[str, Any]) -> str:
    """Return a module as people write it: `Linear(128 -> 10)`, `Dropout(p=0.5)`."""
    if "same_as" in entry:
        return f"same as {entry['same_as'] or 'the model'}"
    if entry["class"] is None:
        return "None"
    attributes = {**_SHOWN_DEFAULTS.get(entry["class"], {}), **entry["attributes"]}
    parts = []
    ends = _ARROWS.get(entry["class"])
    if ends is not None and all(end in attributes for end in ends):
        start, stop = (attributes.pop(end) for end in ends)
        parts.append(f"{start} -> {stop}")
    for name, value in attributes.items():
        if name in _QUIET and value == _QUIET[name]:
            continue
        text = value_text(value)
        if isinstance(value, list):
            text = f"({text[1:-1]})"
        parts.append(f"{name}={text}")
    if any(name == "bias" and spec is None for name, spec in entry.get("parameters", ())):
        parts.append("bias=False")
    return f"{short_class(entry['class'])}({', '.join(parts)})"


def value_text(value: Any) -> str:
    """Return a plain value in one short piece: `(3, 3)`, `0.001`, `'mean'`, `relu`."""
    text = _value_text(value)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _value_text(value: Any, depth: int = 0) -> str:
    if isinstance(value, (dict, list)) and depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return _tagged_text(value) or _dict_text(value, depth)
    if isinstance(value, list):
        items = (_value_text(item, depth + 1) for item in value[:_MAX_ITEMS])
        return "[" + ", ".join(items) + _more(value) + "]"
    if isinstance(value, str):
        return repr(value[:_MAX_TEXT])
    return repr(value) if isinstance(value, float) else _number_text(value)


def _tagged_text(value: Mapping[Any, Any]) -> str | None:
    if "$object" in value:
        return f"{value['$object']} object"
    tag, content = next(iter(value.items()), ("", None))
    if len(value) != 1 or not str(tag).startswith("$"):
        return None
    if tag in _AROUND and content:
        return _value_text(content[0] if isinstance(content, list) else content)
    if tag in _NAMES:
        return str(content[0] if isinstance(content, list) else content)
    return f"<{str(tag)[1:]}>"


def _dict_text(value: Mapping[Any, Any], depth: int) -> str:
    shown = islice(value.items(), _MAX_ITEMS)
    items = (f"{key}: {_value_text(item, depth + 1)}" for key, item in shown)
    return "{" + ", ".join(items) + _more(value) + "}"


def _number_text(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"<integer of {value.bit_length():,} bits>"  # Python refuses to print the longest
    return str(value)


def _more(value: Sized) -> str:
    more = len(value) - _MAX_ITEMS
    return f", and {more:,} more" if more > 0 else ""
