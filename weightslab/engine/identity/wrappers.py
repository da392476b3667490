"""Known wrappers around a module, found by the live type and never by the text of a name.

torch.compile, DataParallel, DistributedDataParallel, FSDP, activation checkpointing and
AveragedModel change how a module runs, not what it is; a user's own submodule called `module` does.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.library import bare_name, class_dict, class_mro, module_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

__all__ = ["clean_module_names", "inner_of", "own_parts", "real_class", "unwrap"]

_BASES_OF: Final = type.__dict__["__bases__"].__get__
# (module that defines the wrapper, its class, attribute of the wrapped module). A class whose module
# was never imported has no instances, so nothing is imported to find out.
_WRAPPERS: Final = (
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    ("torch.nn.parallel.distributed", "DistributedDataParallel", "module"),
    (
        "torch.distributed.fsdp.fully_sharded_data_parallel",
        "FullyShardedDataParallel",
        "_fsdp_wrapped_module",
    ),
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "CheckpointWrapper",
        "_checkpoint_wrapped_module",
    ),
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "OffloadWrapper",
        "_checkpoint_wrapped_module",
    ),
    ("torch.optim.swa_utils", "AveragedModel", "module"),
)
_WRAPPER_NAMES: Final = frozenset(name for _, name, _ in _WRAPPERS)


def own_parts(module: nn.Module, table: str) -> Mapping[str, Any]:
    """Return `_parameters`, `_buffers`, `_modules` or a table of hooks of a module.

    Read from the object itself: a user's `__getattribute__` is not asked.
    """
    found = object.__getattribute__(module, "__dict__").get(table)
    return {} if found is None else found


# Classes with no wrapper among their bases, by id: a save asks for each module several times. Not a
# set, as hashing a class may run code of its metaclass.
_NO_WRAPPERS: Final[dict[int, weakref.ref[type]]] = {}


def _wrapper_segment(kind: type) -> str | None:
    known = _NO_WRAPPERS.get(id(kind))
    if known is not None and known() is kind:
        return None
    mro = class_mro(kind)
    if _WRAPPER_NAMES.isdisjoint(map(bare_name, mro)):
        number = id(kind)
        _NO_WRAPPERS[number] = weakref.ref(kind, lambda _: _NO_WRAPPERS.pop(number, None))
        return None
    for home, name, segment in _WRAPPERS:
        module = sys.modules.get(home)
        cls: Any = module.__dict__.get(name) if module is not None else None
        if cls is None or not any(base is cls for base in mro):
            continue
        # a subclass that runs its own forward is no mere wrapper any more
        first = next(base for base in mro if "forward" in class_dict(base))
        if class_dict(first)["forward"] is getattr(cls, "forward", None):
            return segment
    return None


def inner_of(module: nn.Module) -> tuple[str, nn.Module] | None:
    """Return (attribute segment, wrapped module) if `module` is a known wrapper, else None."""
    segment = _wrapper_segment(type(module))
    if segment is None:
        return None
    inner = own_parts(module, "_modules").get(segment)
    return (segment, inner) if inner is not None else None


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside all known wrappers around it; itself if there is none."""
    while (found := inner_of(module)) is not None:
        module = found[1]
    return module


def clean_module_names(model: nn.Module) -> dict[str, str]:
    """Return raw module path -> path without wrapper segments, for every module of the tree.

    Shared modules appear under each of their paths. Wrappers map to the path of what they wrap, so
    a state-dict key `raw.name` is renamed by its owner: `clean[raw] + "." + name`.
    Raises: IdentityError for a module that contains itself.
    """
    names: dict[str, str] = {}
    above: set[int] = set()
    stack: list[tuple[nn.Module | None, str, str]] = [(model, "", "")]
    while stack:
        module, raw, clean = stack.pop()
        if module is None:  # everything below the module on top has been visited
            above.discard(id(stack.pop()[0]))
            continue
        if id(module) in above:
            raise IdentityError(
                f"the module at {raw!r} contains itself",
                hint="keep the parent in a plain attribute",
            )
        names[raw] = clean
        above.add(id(module))
        stack += [(module, "", ""), (None, "", "")]
        stack.extend(reversed(_children(module, raw, clean)))
    return names


def _children(module: nn.Module, raw: str, clean: str) -> list[tuple[nn.Module | None, str, str]]:
    found = inner_of(module)
    children: list[tuple[nn.Module | None, str, str]] = []
    for name, child in own_parts(module, "_modules").items():
        if child is None:
            continue
        raw_child = f"{raw}.{name}" if raw else name
        if found is not None and name == found[0]:
            children.append((child, raw_child, clean))
        else:
            children.append((child, raw_child, f"{clean}.{name}" if clean else name))
    return children


def real_class(module: nn.Module) -> type:
    """Return the class as written: FSDP2 and parametrizations replace it by one of their own."""
    kind = type(module)
    while True:
        written: tuple[type, ...] = _BASES_OF(kind)
        bases = [base for base in written if bare_name(base) != "FSDPModule"]
        sharded = len(bases) == 1 and len(written) == 2  # noqa: PLR2004  (FSDPModule, own)
        parametrized = (
            module_of(kind) == "torch.nn.utils.parametrize"
            and len(bases) == 1
            and bare_name(kind) == f"Parametrized{bare_name(bases[0])}"
        )
        if not (sharded or parametrized):
            return kind
        kind = bases[0]
