"""The config as a component: its plain form, what is excluded, and the digest of the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.canonical import digest_of_encoding
from weightslab.engine.identity.declared import declared_fields, declared_shape
from weightslab.engine.identity.plain import plain_bytes, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weightslab.engine.identity.expand import Shape

__all__ = ["DEFAULT_EXCLUDED", "ConfigDescription", "describe_config", "flatten"]

DEFAULT_EXCLUDED: Final = ("root_log_dir", "experiment_name", "is_training", "pause_at_step")
_NUMBER_TEXT: Final = re.compile(r"[+-]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDescription:
    """What a config is.

    Attributes:
        digest: `wl1:sha256:...` of the config without the excluded keys.
        plain: the whole config, excluded keys included, as YAML-able values; describing it again
            gives the same digest.
        excluded: dotted paths that do not count, defaults first.
        warnings: one line for each text that looks like a number.
        flat: dotted path -> leaf, of what counts.
    """

    digest: str
    plain: Any
    excluded: tuple[str, ...]
    warnings: tuple[str, ...]
    flat: dict[str, Any]


def describe_config(config: object, *, exclude: Sequence[str] = ()) -> ConfigDescription:
    """Describe a config: dict, Namespace, dataclass, pydantic, OmegaConf, ... are one form.

    Args:
        config: the hyperparameters; the top level is a mapping or an object with fields.
        exclude: full dotted paths (`data.dir`) that do not count, with everything below them.
    Raises: NotCanonicalError naming the dotted path, the type and the remedy of a value that has
        no deterministic form; TypeError if `exclude` is not a sequence of texts.
    """
    if isinstance(exclude, str) or not all(isinstance(path, str) for path in exclude):
        raise TypeError(f"config_exclude is a sequence of dotted paths, not {exclude!r}")
    if isinstance(config, type):
        raise NotCanonicalError(
            f"the config is the class {config.__qualname__} itself, not an instance of it",
            hint=f"did you mean {config.__qualname__}()?",
        )
    excluded = tuple(dict.fromkeys((*DEFAULT_EXCLUDED, *exclude)))
    hidden = frozenset(excluded)
    try:
        plain = to_plain(config, root="config", special=_user_code, lenient=hidden.__contains__)
    except RecursionError as error:  # code that reaches code that reaches code ...
        raise NotCanonicalError(
            "the code in the config is nested too deeply to be described",
            hint="name what is meant by a text, or exclude the key with config_exclude",
        ) from error
    if not isinstance(plain, dict):
        raise NotCanonicalError(
            f"a config is a mapping of names to values, not a {type(config).__qualname__}",
            hint="pass a dict, Namespace, dataclass, pydantic or OmegaConf object",
        )
    counted = without(plain, hidden)
    flat = dict(flatten(counted))
    return ConfigDescription(
        digest=digest_of_encoding("config", _encoding(counted)),
        plain=plain,
        excluded=excluded,
        warnings=tuple(_number_warnings(flat)),
        flat=flat,
    )


def _encoding(counted: Any) -> bytes:
    try:
        return plain_bytes(counted)
    except NotCanonicalError as error:
        raise NotCanonicalError(f"config: {error.message}", hint=error.hint) from error


def _user_code(value: Any) -> Shape | None:
    """Describe a user's function by its name and code: a name alone does not say what it does.

    Objects whose class declares its identity are described as it says.
    """
    from weightslab.engine.identity.reach import function_shape

    return function_shape(value) or declared_shape(value) or declared_fields(value)


def without(plain: dict[Any, Any], hidden: frozenset[str]) -> dict[Any, Any]:
    """Return `plain` without the values at the dotted paths in `hidden`; the rest is shared.

    Only as deep as the longest hidden path reaches, so that depth costs nothing.
    """
    return _without(plain, hidden, "", max((path.count(".") for path in hidden), default=0))


def _without(
    record: dict[Any, Any], hidden: frozenset[str], prefix: str, depth: int
) -> dict[Any, Any]:
    kept: dict[Any, Any] = {}
    for key, value in record.items():
        path = f"{prefix}{key}"
        if path in hidden:
            continue
        if depth > 0 and isinstance(value, dict):
            value = _without(value, hidden, f"{path}.", depth - 1)  # noqa: PLW2901
        kept[key] = value
    return kept


def flatten(plain: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, leaf) in order; empty containers and tagged values are leaves.

    Attributes of an object appear like the keys of a dict, its class as `$object`.
    """
    stack: list[tuple[str, Any]] = [("", plain)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict) and value and not _is_tagged(value):
            stack.extend(
                (
                    path
                    if key in ("$state", "$identity")
                    else f"{path}.{key}"
                    if path
                    else str(key),
                    item,
                )
                for key, item in reversed(value.items())
            )
        elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
            stack.extend((f"{path}[{i}]", item) for i, item in reversed([*enumerate(value)]))
        else:
            yield path, value


def _is_tagged(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and str(next(iter(value))).startswith("$")


def _number_warnings(flat: dict[str, Any]) -> Iterator[str]:
    for path, value in flat.items():
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, str) and _NUMBER_TEXT.match(item):
                yield (
                    f"{path} is the text {item!r}, not a number; if a number is meant, write"
                    f" {_as_number(item)} (YAML reads 1e-3 as text, 1.0e-3 as a number)"
                )


def _as_number(text: str) -> str:
    clean = text.replace("_", "")
    if re.fullmatch(r"[+-]?[0-9]+", clean):
        return clean.lstrip("+")
    mantissa, mark, exponent = clean.lower().partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}" if mark else mantissa
