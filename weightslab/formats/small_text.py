"""Small text files of others, YAML and JSON: bounded in size, and nothing in them is run."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import yaml

from weightslab.engine.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Pairs", "load_json", "load_yaml"]

_MAX_YAML_BYTES: Final = 1 << 20  # PyYAML reads about 0.05 MB/s; 2,000 experiments are 0.8 MB
_MAX_JSON_BYTES: Final = 256 << 20  # a list of 3 million samples
_MAX_DEPTH: Final = 100
_MAX_VALUES: Final = 1_000_000  # with aliases written out


class Pairs(dict[str, Any]):
    """A JSON object. `twice` names the keys that it has more than once; the last value counts."""

    twice: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
    """Reads what `yaml.dump` writes of plain values: aliases and tuples too, no other objects."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth >= _MAX_DEPTH:
            raise yaml.YAMLError(f"values are nested more than {_MAX_DEPTH} levels deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _num_values(node, {}) > _MAX_VALUES:
            raise yaml.YAMLError(f"with its aliases it has more than {_MAX_VALUES:,} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.YAMLError("a mapping has the same key twice")
        return mapping


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),  # type: ignore[arg-type]
)


def _num_values(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values below a node, each as often as it is named."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise yaml.YAMLError("a value holds itself")
        return count
    known[id(node)] = None
    below: Iterable[yaml.Node] = ()
    if isinstance(node, yaml.MappingNode):
        below = (each for pair in node.value for each in pair)
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    known[id(node)] = total = 1 + sum(_num_values(each, known) for each in below)
    return total


def load_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file.

    Raises: FormatError, OSError.
    """
    text = _read(path, _MAX_YAML_BYTES)
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise FormatError(f"{path.name} is not plain YAML: {line:.200}") from error


def load_json(path: Path) -> Any:
    """Return the values of a JSON file; objects are `Pairs`.

    Raises: FormatError, OSError.
    """
    text = _read(path, _MAX_JSON_BYTES)
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name} is not valid JSON: {error!s:.200}") from error


def _pairs(found: list[tuple[str, Any]]) -> Pairs:
    made = Pairs(found)
    if len(made) != len(found):
        counts = Counter(key for key, _ in found)
        made.twice = tuple(sorted(key for key, count in counts.items() if count > 1))
    return made


def _read(path: Path, most_bytes: int) -> str:
    if not path.is_file():  # a pipe would never end
        raise FormatError(f"{path.name} is no file")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise FormatError(f"{path.name} has more than {most_bytes:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is not UTF-8: {error}") from error
