"""The config file: sealed YAML that people read and `load_config` returns."""

from __future__ import annotations

from typing import Any

import yaml

from weightslab.engine.errors import InvalidManifestError, NotStorableError
from weightslab.engine.jsonform import seal_text, unseal_text

__all__ = ["config_from_bytes", "config_to_bytes", "same_config"]


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

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.YAMLError("a mapping has the same key twice")
        return mapping


def config_to_bytes(plain: dict[str, Any], *, name: str) -> bytes:
    """Render `plain` (None, bool, int, float, str, list, dict) as sealed YAML.

    The first line is a comment with the `name` of the file, so that an exchanged file is noticed.

    Raises: NotStorableError if YAML would not give the same values back.
    """
    try:
        text = yaml.dump(
            plain, Dumper=_Dumper, sort_keys=True, allow_unicode=True, default_flow_style=False
        )
        data = seal_text(f"# {name}\n{text}")
        same = same_config(config_from_bytes(data, name=name), plain)
    except (yaml.YAMLError, UnicodeError, RecursionError, TypeError) as error:
        raise NotStorableError(f"the config cannot be written as YAML: {error}") from error
    if not same:
        raise NotStorableError(
            "the config does not survive a round trip through YAML",
            hint="use plain values: None, bool, int, float, str, list, dict with string keys",
        )
    return data


def same_config(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two plain configs are the same to the bit: 1 is not 1.0, NaN is NaN."""
    return repr(_sorted(one)) == repr(_sorted(other))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, list) else value


def config_from_bytes(data: bytes | memoryview, *, name: str) -> dict[str, Any]:
    """Check the seal and the name, and parse the config.

    Raises: TruncatedError, DigestMismatchError, InvalidManifestError.
    """
    text = unseal_text(data, what=name)
    head = text.partition("\n")[0]
    if head != f"# {name}":
        raise InvalidManifestError(f"{name} says it is {head[2:]!r:.90}", hint="it was exchanged")
    try:
        plain = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidManifestError(f"{name} is not a valid config: {error}") from error
    if not isinstance(plain, dict):
        raise InvalidManifestError(f"{name} is not a mapping of config keys")
    return plain
