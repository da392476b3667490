"""Tensors of a model: name, dtype and shape, ties, and the values of constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import IdentityError, NotCanonicalError
from weightslab.engine.identity.layers import inner_shape
from weightslab.engine.identity.wrappers import own_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import nn

    from weightslab.engine.identity.flat import FlatPart
    from weightslab.engine.identity.liveform import LiveForms

__all__ = ["TensorSpecs", "joined"]


def joined(path: str, name: str) -> str:
    """Return the name of a part of the module at `path`."""
    return f"{path}.{name}" if path else name


class TensorSpecs:
    """Specs of parameters and buffers; a tensor seen before is `same_as` its first name.

    Args:
        forms: knows the tensors of the model.
        plain: describes a value at a path (hooks on parameters).
        is_machinery: says of a hook whether it belongs to a wrapper such as FSDP.
        flat: id of a module -> its parameters inside a flat parameter of FSDP1.
        paths: id of a module -> its path.
    """

    def __init__(
        self,
        forms: LiveForms,
        plain: Callable[[Any, str], Any],
        is_machinery: Callable[[Any], bool],
        *,
        flat: Mapping[int, list[FlatPart]],
        paths: Mapping[int, str],
    ) -> None:
        self._flat = flat
        self._paths = paths
        self._forms = forms
        self._plain = plain
        self._is_machinery = is_machinery

    def register(self, path: str, module: nn.Module, hidden: Collection[str]) -> None:
        """Remember the tensors of a module under their names."""
        for table in ("_parameters", "_buffers"):
            for name, tensor in own_parts(module, table).items():
                if tensor is not None and name not in hidden:
                    self._forms.add_tensor(tensor, joined(path, name))

    def flat_names(self, module: nn.Module) -> frozenset[str]:
        """Return the names of parameters that are parts of a flat one."""
        return frozenset(part.name for part in self._flat.get(id(module), ()))

    def parameters(self, path: str, module: nn.Module, hidden: Collection[str]) -> list[Any]:
        """Return [[name, spec], ...] in order of registration.

        Names without a parameter come last: where they stand decides nothing, and wrappers that
        take parameters out and put them back leave them in another place.
        """
        parts = [part for part in self._flat.get(id(module), ()) if part.name not in hidden]
        kept = [(n, t) for n, t in self._own_parameters(module) if n not in hidden]
        return [
            *([part.name, self._flat_spec(part)] for part in parts),
            *([n, self._spec(joined(path, n), t)] for n, t in kept if t is not None),
            *([name, None] for name in sorted(n for n, t in kept if t is None)),
        ]

    def _own_parameters(self, module: nn.Module) -> list[tuple[str, Any]]:
        """Return (name, parameter or None) without the flat parameter itself."""
        items = own_parts(module, "_parameters").items()
        if not self._flat:
            return list(items)
        return [(n, t) for n, t in items if not getattr(t, "_is_flat_param", False)]

    def _flat_spec(self, part: FlatPart) -> Any:
        if part.tied_to is None:
            return part.spec
        owner, name = part.tied_to
        return {"same_as": joined(self._paths[owner], name)}

    def frozen(self, path: str, module: nn.Module, hidden: Collection[str]) -> list[str]:
        """Return the names of parameters that do not train."""
        flat = [part.name for part in self._flat.get(id(module), ()) if not part.trains]
        own = [
            name
            for name, parameter in self._own_parameters(module)
            if parameter is not None and not parameter.requires_grad
        ]
        return [joined(path, name) for name in [*flat, *own] if name not in hidden]

    def buffers(
        self,
        path: str,
        module: nn.Module,
        hidden: Collection[str],
        *,
        is_state: Callable[[str, Any], bool],
        derived: bool,
    ) -> list[Any]:
        """Return [[name, spec], ...]; values only of constants that no state dict holds.

        Args:
            is_state: says of a name and a tensor whether code changes it: then it is no constant.
            derived: a library's constructor makes the constants from what is counted already.
        """
        found: list[Any] = []
        unsaved = own_parts(module, "_non_persistent_buffers_set")
        for name, buffer in own_parts(module, "_buffers").items():
            if name in hidden:
                continue
            full_name = joined(path, name)
            spec = self._spec(full_name, buffer)
            if name not in unsaved:
                found.append([name, spec])
            elif is_state(name, buffer):
                found.append([name, "written by forward", "not persistent"])
            else:
                constant = spec if derived else self._constant(spec, buffer, full_name)
                found.append([name, constant, "not persistent"])
        return found

    def _constant(self, spec: Any, tensor: Any, where: str) -> Any:
        if tensor is None:
            return spec
        try:
            return [spec, self._forms.content_digest(tensor, where)]
        except NotCanonicalError as error:
            raise IdentityError(f"{where}: {error.message}", hint=error.hint) from error

    def _spec(self, full_name: str, tensor: Any) -> Any:
        """Return [dtype, shape] of a tensor, or the name under which it was seen before."""
        if tensor is None:
            return None
        first = self._forms.tensor_paths[id(tensor)]
        if first != full_name:
            return {"same_as": first}
        shape = inner_shape(tensor)
        if shape is None:
            raise IdentityError(
                f"{full_name} is a lazy parameter that has no shape yet",
                hint="run one forward first",
            )
        spec = [str(tensor.dtype).removeprefix("torch."), shape]
        hooks = [h for h in (tensor._backward_hooks or {}).values() if not self._is_machinery(h)]
        if hooks:
            spec.append([self._plain(hook, f"hook of {full_name}") for hook in hooks])
        return spec
