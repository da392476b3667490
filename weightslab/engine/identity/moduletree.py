"""The module entries of a description as a tree whose equal branches can be recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Entry", "Node", "build_tree", "map_references", "tensor_names"]

Entry = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Node:
    """One module of a description.

    Attributes:
        path: dotted path from the model, "" for the model itself.
        entry: what is stored of it.
        children: name -> node, in registration order.
        signature: equal for two nodes if everything in and below them is equal, paths aside.
        has_weights: there is a parameter in it or below it.
    """

    path: str
    entry: Entry
    children: dict[str, Node] = field(default_factory=dict)
    signature: str = ""
    has_weights: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_module(self) -> bool:
        """False for a child that is None, and for another name of a module."""
        return self.entry.get("class") is not None

    def walk(self) -> Iterator[Node]:
        """Yield the node and all nodes below it, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children.values()))


def build_tree(entries: Iterable[Entry]) -> Node:
    """Return the root of the tree.

    Raises: KeyError if an entry has no parent before it.
    """
    nodes: dict[str, Node] = {}
    for entry in entries:
        node = Node(entry["path"], entry)
        if node.path:
            nodes[node.path.rpartition(".")[0]].children[node.name] = node
        nodes[node.path] = node
    for node in reversed(nodes.values()):
        _sign(node)
    return nodes[""]


def _sign(node: Node) -> None:
    """Digest an entry with relative references, and the signatures below it."""
    own = map_references(
        {key: value for key, value in node.entry.items() if key != "path"},
        lambda path: _relative(node.path, path),
        lambda path: _relative(node.path, path),
    )
    below = [[name, child.signature] for name, child in node.children.items()]
    text = json.dumps([own, below], sort_keys=True)
    node.signature = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    node.has_weights = bool(tensor_names(node.entry)) or any(
        child.has_weights for child in node.children.values()
    )


def _relative(start: str, path: str) -> str:
    here, there = start.split("."), str(path).split(".")
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    return "^" * (len(here) - common) + ".".join(there[common:])


def tensor_names(entry: Entry) -> list[str]:
    """Return the names of the parameters that the module itself owns, ties left out."""
    return [name for name, *spec in entry.get("parameters", ()) if isinstance(spec[0], list)]


def map_references(value: Any, module: Callable[[str], str], tensor: Callable[[str], str]) -> Any:
    """Return `value` with the paths of other modules and tensors in it replaced.

    Args:
        module: new path of a module.
        tensor: new path of a parameter or buffer.
    """
    if isinstance(value, list):
        return [map_references(item, module, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: map_references(item, module, tensor) for key, item in value.items()}
    if "same_as" in value and isinstance(value["same_as"], str):
        # an entry names a module, a tensor spec (which has no class and no path) names a tensor
        found["same_as"] = (tensor if len(value) == 1 else module)(value["same_as"])
    if isinstance(value.get("$module"), str):
        found["$module"] = module(value["$module"])
    inner = value.get("$tensor")
    if isinstance(inner, dict) and isinstance(inner.get("path"), str):
        found["$tensor"] = {"path": tensor(inner["path"])}
    return found
