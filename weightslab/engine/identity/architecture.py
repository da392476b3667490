"""The model as a component: module tree, layer attributes, tensor specs, ties and user code."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from weightslab.engine.errors import FormatError, IdentityError
from weightslab.engine.identity.canonical import digest_of_encoding
from weightslab.engine.identity.layers import outline_of
from weightslab.engine.identity.library import (
    LIBRARY_LIST_VERSION,
    checked_libraries,
    with_libraries,
)
from weightslab.engine.identity.modules import ModelReader
from weightslab.engine.identity.plain import plain_bytes
from weightslab.engine.identity.treetext import render_model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

__all__ = ["ModelDescription", "describe_model", "digest_of_document", "outline"]

DOCUMENT_SCHEMA: Final = "weightslab-architecture-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What a model is.

    Attributes:
        digest: `wl1:sha256:...` of `document["identity"]`.
        document: JSON-able: `schema`, `identity` (all that is hashed), `sources` of user code,
            `values` that it uses (constants, defaults, closures), `versions` of libraries, `weak`
            marks. Only `identity` is in the digest.
        text: a module tree for the eye.
        weak: labels of code that could only be described as byte-code.
        class_names: name in the dict of models ("" for a single one) -> class name.
    """

    digest: str
    document: dict[str, Any]
    text: str
    weak: tuple[str, ...]
    class_names: dict[str, str]


def describe_model(
    model: nn.Module | Mapping[str, nn.Module], *, libraries: Iterable[str] = ()
) -> ModelDescription:
    """Describe a model, or several models by name, without running it and without its weights.

    Wrappers (torch.compile, DP, DDP, FSDP, ...) are looked through at every level.

    Args:
        model: a module, or a dict of name -> module.
        libraries: top-level packages that count as libraries besides `LIBRARIES`: their classes
            and functions are known by name, with their constructor arguments, and not by their code.
    Raises: IdentityError naming path, type and remedy of what cannot be described, and for lazy
        parameters that have no shape yet; TypeError for something that is not a module.
    """
    with with_libraries(checked_libraries(libraries)):
        return _describe(model)


def _describe(model: nn.Module | Mapping[str, nn.Module]) -> ModelDescription:
    named = _named_models(model)
    readers = {name: ModelReader(one) for name, one in named.items()}
    identities = {name: reader.identity() for name, reader in readers.items()}
    single = _is_module(model)
    identity: dict[str, Any] = {
        "scheme": f"model-1 libraries-{LIBRARY_LIST_VERSION}",
        "models": [[name, identities[name]] for name in sorted(identities)],
    }
    weak = tuple(
        label if single else f"{name}: {label}"
        for name, reader in sorted(readers.items())
        for label in reader.weak()
    )
    document = {
        "schema": DOCUMENT_SCHEMA,
        "identity": identity,
        "sources": {name: reader.sources() for name, reader in readers.items()},
        "values": {name: reader.values() for name, reader in readers.items()},
        "versions": _versions(identities),
        "weak": list(weak),
    }
    return ModelDescription(
        digest=digest_of_document(document),
        document=document,
        text=render_model(identity),
        weak=weak,
        class_names={name: reader.class_name for name, reader in readers.items()},
    )


def _named_models(model: Any) -> dict[str, Any]:
    is_named = not _is_module(model) and isinstance(model, Mapping)
    named = dict(model) if is_named else {"": model}
    if not named:
        raise IdentityError("an empty dict of models has no architecture", hint="pass a module")
    for name, one in named.items():
        if not isinstance(name, str) or not _is_module(one):
            raise TypeError(
                f"a model is a torch.nn.Module or a dict of name -> module; {name!r} is a"
                f" {type(one).__module__}.{type(one).__qualname__}"
            )
    return named


def _is_module(model: Any) -> bool:
    """Say whether this is a module, without asking its metaclass, which may be a user's."""
    from torch import nn

    return issubclass(type(model), nn.Module)


def digest_of_document(document: Mapping[str, Any]) -> str:
    """Return the digest that a stored architecture document stands for.

    Raises: FormatError if it has no identity part of this version.
    """
    identity = document.get("identity")
    if not isinstance(identity, dict) or "models" not in identity:
        raise FormatError("an architecture document without its identity part")
    return digest_of_encoding("model", plain_bytes(identity, strict=True))


def outline(model: nn.Module | Mapping[str, nn.Module]) -> dict[str, str]:
    """Return clean module path -> text of class, constants and tensor specs; O(modules), cheap.

    Two outlines differ if a layer, shape, dtype, tie, constant or trainable flag differs. Code and
    plain attributes are not looked at: only `describe_model` sees those. Paths of a dict of models
    start with `name:`.
    """
    if _is_module(model):
        return outline_of(cast("nn.Module", model))
    model = cast("Mapping[str, nn.Module]", model)
    return {
        f"{name}:{path}": line
        for name in sorted(model)
        for path, line in outline_of(model[name]).items()
    }


def _versions(identities: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of Python and of the libraries whose layers occur."""
    tops = {"torch"}
    for identity in identities.values():
        for entry in identity["modules"]:
            if entry.get("kind") == "library":
                tops.add(entry["class"].partition(".")[0])
    # `importlib.metadata` would scan all installed packages: 80 ms here
    found = {top: str(getattr(sys.modules.get(top), "__version__", "unknown")) for top in tops}
    return {"python": platform.python_version(), **found}
