"""YAML of plain values, strict in both directions. Imported when the first config is read or written:
PyYAML costs 17 ms at import.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

__all__ = ["YamlError", "dump", "load"]

YamlError = yaml.YAMLError
MAX_DEPTH: Final = 200  # far above real configs; 20,000 open brackets keep PyYAML busy for seconds


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, and quotes every string that somebody could take for a number."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # YAML 1.2 readers take 1e-3 for a number where PyYAML (YAML 1.1) sees a string
    style = "'" if _looks_like_number(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _looks_like_number(text: str) -> bool:
    try:
        float(text.replace("_", ""))
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _represent_text)


class _Loader(yaml.SafeLoader):
    """Reads plain values; refuses aliases (they can grow without bound) and duplicate keys."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        if self._depth >= MAX_DEPTH:
            raise yaml.YAMLError(f"values are nested more than {MAX_DEPTH} levels deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        return _without_repetition(super().construct_mapping(node, deep=deep), node)


def _without_repetition(mapping: dict[Any, Any], node: yaml.MappingNode) -> dict[Any, Any]:
    if len(mapping) != len(node.value):
        raise yaml.YAMLError("a mapping has the same key twice")
    return mapping


# What both parsers of PyYAML read alike and in bounded time: lines of ASCII without anchors, tags,
# block texts, escapes, or brackets that hold anything. The one in C takes a seventh of the time.
# (Looked for by what is odd: a pattern that has to match the whole text takes memory by its length.)
_ODD: Final = re.compile(r"[^\n -~]|[&*!|>?%@`\\{}\[\]]")
_MAX_INDENT: Final = re.compile(r"^(?: {64}|(?:- ?){16})", re.MULTILINE)  # far above real configs
_CParser = getattr(yaml, "CSafeLoader", None)


if _CParser is not None:

    class _FastLoader(_CParser):  # type: ignore[misc,valid-type] # present where libyaml is
        """Reads simple texts with libyaml, as strictly."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            return _without_repetition(super().construct_mapping(node, deep=deep), node)


def dump(plain: dict[str, Any]) -> str:
    """Render plain values: sorted keys, block style, no anchors.

    Raises: YamlError.
    """
    text: str = yaml.dump(
        plain, Dumper=_Dumper, sort_keys=True, allow_unicode=True, default_flow_style=False
    )
    return text


def load(text: str) -> Any:
    """Parse plain values; no aliases, no duplicate keys, no tags that build objects.

    Raises: YamlError, ValueError, RecursionError.
    """
    loader = _FastLoader if _CParser is not None and _is_simple(text) else _Loader
    return yaml.load(text, Loader=loader)  # noqa: S506 - both are a SafeLoader


def _is_simple(text: str) -> bool:
    bare = text.replace("[]", "").replace("{}", "")
    return not _ODD.search(bare) and not _MAX_INDENT.search(text)
