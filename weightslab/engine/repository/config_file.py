"""The config file: sealed YAML that people read and `load_config` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import InvalidManifestError, NotStorableError
from weightslab.engine.jsonform import seal_text, unseal_text
from weightslab.engine.repository import layout

if TYPE_CHECKING:
    from weightslab.engine.storage.store import Store

__all__ = [
    "config_from_bytes",
    "config_revisions",
    "config_to_bytes",
    "newest_config",
    "same_config",
]


def config_to_bytes(plain: dict[str, Any], *, name: str) -> bytes:
    """Render `plain` (None, bool, int, float, str, list, dict) as sealed YAML.

    The first line is a comment with the `name` of the file, so that an exchanged file is noticed.

    Raises: NotStorableError if YAML would not give the same values back.
    """
    from weightslab.engine.repository import plain_yaml

    try:
        data = seal_text(f"# {name}\n{plain_yaml.dump(plain)}")
        same = same_config(config_from_bytes(data, name=name), plain)
    except (plain_yaml.YamlError, UnicodeError, RecursionError, TypeError) as error:
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
        keys = sorted(value, key=lambda k: (type(k).__name__, k if isinstance(k, str) else repr(k)))
        return {k: _sorted(value[k]) for k in keys}
    return [_sorted(v) for v in value] if isinstance(value, list) else value


def config_from_bytes(data: bytes | memoryview, *, name: str) -> dict[str, Any]:
    """Check the seal and the name, and parse the config.

    Raises: TruncatedError, DigestMismatchError, InvalidManifestError.
    """
    from weightslab.engine.repository import plain_yaml

    text = unseal_text(data, what=name)
    head = text.partition("\n")[0]
    if head != f"# {name}":
        raise InvalidManifestError(f"{name} says it is {head[2:]!r:.90}", hint="it was exchanged")
    try:
        plain = plain_yaml.load(text)
    except (plain_yaml.YamlError, RecursionError, ValueError) as error:
        raise InvalidManifestError(f"{name} is not a valid config: {error}") from error
    if not isinstance(plain, dict):
        raise InvalidManifestError(f"{name} is not a mapping of config keys")
    return plain


def newest_config(store: Store, exp_hash: str) -> str | None:
    """Return the file name of the newest revision of the config, None without one."""
    newest = max((r for n, r in config_revisions(store, exp_hash) if n == "config"), default=0)
    key = layout.config_key(exp_hash, revision=newest)
    return key.rpartition("/")[2] if newest else None


def config_revisions(store: Store, exp_hash: str) -> list[tuple[str, int]]:
    """Return (name, revision) of every config file of the experiment, ascending."""
    parsed = (
        layout.parse_config_name(exp_hash, file)
        for file in store.list(layout.config_folder(exp_hash))
    )
    return sorted(p for p in parsed if p is not None)
