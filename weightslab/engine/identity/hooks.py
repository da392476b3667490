"""Hooks and patched methods: code that runs with a module without being in its class."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.library import (
    class_dict,
    class_mro,
    home_of,
    is_library,
    module_of,
    public_class_name,
)
from weightslab.engine.identity.reach import CodeTable
from weightslab.engine.identity.wrappers import own_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from weightslab.engine.identity.reach import Special

__all__ = ["global_hooks", "hooks_of", "is_machinery", "patched_methods"]

_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS: Final = (
    "_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
    "_global_backward_pre_hooks",
)  # fmt: skip
# Transformers and PEFT let gradients reach the first layer when activations are checkpointed
_FOR_CHECKPOINTING: Final = frozenset({"make_inputs_require_grads", "make_inputs_require_grad"})
Plain = Callable[[Any, str], Any]  # describes a value that stands at a path


def hooks_of(path: str, module: nn.Module, plain: Plain, special: Special) -> list[Any]:
    """Return [kind, plain form] of the hooks of a module that can change what it computes."""
    where = f"{path or 'model'}."
    found = [(kind, hook) for kind in _HOOKS for hook in own_parts(module, kind).values()]
    return _described(found, where, plain, special)


def global_hooks(plain: Plain, special: Special) -> list[Any]:
    """Return [kind, plain form] of the hooks that torch runs for every module."""
    from torch.nn.modules import module as home

    tables = [(kind, vars(home).get(kind, {})) for kind in _GLOBAL_HOOKS]
    found = [(kind, hook) for kind, table in tables for hook in table.values()]
    return _described(found, "", plain, special)


def _described(
    hooks: list[tuple[str, Any]], where: str, plain: Plain, special: Special
) -> list[Any]:
    return [
        [kind.strip("_"), plain(hook, f"{where}{kind.strip('_')}")]
        for kind, hook in hooks
        if not is_machinery(hook) and not only_looks(hook, special)
    ]


def only_looks(hook: Any, special: Special) -> bool:
    """Say whether a hook returns nothing and changes nothing in place, as far as code shows."""
    function = hook.__func__ if type(hook) is types.MethodType else hook
    if type(function) is not types.FunctionType or is_library(home_of(function)):
        return False
    probe = CodeTable(special)
    probe.function(function)
    facts = [entry.facts for entry in probe.entries.values()]
    own = facts[0]  # the hook itself is described first
    return not own.returns_value and not any(f.in_place for f in facts)


def is_machinery(hook: Any) -> bool:
    """Say whether a hook belongs to the machinery of a wrapper (FSDP, DDP)."""
    if type(hook) is types.MethodType:
        hook = hook.__func__
    home: object = module_of(type(hook))
    if type(hook) is types.FunctionType:
        home = hook.__module__
        if hook.__name__ in _FOR_CHECKPOINTING and is_library(home_of(hook)):
            return True
    elif home == "functools":
        return is_machinery(hook.func)
    return str(home).startswith(("torch.distributed", "torch.nn.parallel"))


def patched_methods(cls: type) -> Iterator[tuple[str, types.FunctionType]]:
    """Yield (name, function) of a user's functions that were put into library classes.

    Of torch all methods, of other libraries `forward` alone: their methods may be made by
    decorators from packages that are not on the list of libraries.
    """
    for base in class_mro(cls):
        home = str(module_of(base))
        if is_library(home):
            members = class_dict(base)
            names = members if home.startswith("torch.") else ("forward", "__call__")
            for name in names:
                if name.startswith("__") and name != "__call__":
                    continue
                member = members.get(name)
                if type(member) is types.FunctionType and not is_library(home_of(member)):
                    yield f"{public_class_name(base)}.{name}", member
