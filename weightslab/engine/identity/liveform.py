"""Plain forms of live torch objects that code may read: modules, tensors, locks, generated code."""

from __future__ import annotations

import hashlib
import logging
import random
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import NotCanonicalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from weightslab.engine.identity.expand import Shape

__all__ = ["LiveForms"]

# state of the running process, not of the architecture
_RUNTIME: Final = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Event,
    threading.Condition,
    threading.Semaphore,
    threading.local,
    logging.Logger,
    logging.LoggerAdapter,
    random.Random,
)


class LiveForms:
    """Knows the modules and tensors of one model by identity.

    Args:
        module_paths: id of a module -> its clean path.
        describe_apart: describes a module outside the tree.
    """

    def __init__(
        self, module_paths: Mapping[int, str], describe_apart: Callable[[nn.Module], dict[str, Any]]
    ) -> None:
        self._module_paths = module_paths
        self._describe_apart = describe_apart
        self._apart: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._digests: dict[int, tuple[Any, str]] = {}
        self.tensor_paths: dict[int, str] = {}

    def add_tensor(self, tensor: Any, path: str) -> None:
        """Remember the first name of a parameter or buffer."""
        self.tensor_paths.setdefault(id(tensor), path)

    def shape_of(self, value: Any) -> Shape | None:  # noqa: PLR0911  one line per kind
        """Return the shape of a live object, None for what is not one."""
        import torch
        from torch import nn

        kind = type(value)  # `isinstance` would ask the object itself, which may be a user's
        if issubclass(kind, nn.Module):
            return self._module_shape(value)
        if issubclass(kind, torch.Tensor):
            return "dict", [("$tensor", self._tensor_form(value))]
        if issubclass(kind, torch.jit.ScriptFunction):
            return "dict", [("$script", value.code)]
        np = sys.modules.get("numpy")
        if np is not None and issubclass(kind, np.ndarray) and value.dtype.kind in "?biufc":
            digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return "dict", [("$array", [value.dtype.str, list(value.shape), digest])]
        if issubclass(kind, (*_RUNTIME, torch.Generator)) or _is_stream(kind):
            return "dict", [("$runtime", type(value).__name__)]
        if issubclass(kind, weakref.ref):
            return "dict", [("$weakref", value())]
        return None

    def _module_shape(self, module: nn.Module) -> Shape:
        from weightslab.engine.identity.wrappers import unwrap

        module = unwrap(module)
        path = self._module_paths.get(id(module))
        if path is not None:
            return "dict", [("$module", path)]
        known = self._apart.get(id(module))
        if known is None:
            known = (module, self._describe_apart(module))
            self._apart[id(module)] = known
        return "dict", [("$modules", known[1])]

    def _tensor_form(self, tensor: Any) -> Any:
        import torch

        path = self.tensor_paths.get(id(tensor))
        if path is not None:
            return {"path": path}
        spec = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        if isinstance(tensor, torch.nn.Parameter):
            return [*spec, "weights"]
        return [*spec, self.content_digest(tensor)]

    def content_digest(self, tensor: Any) -> str:
        """Return a digest of the values of a constant tensor; computed once per tensor.

        Raises: NotCanonicalError for a tensor without values to read (meta, sparse, quantized).
        """
        import torch

        known = self._digests.get(id(tensor))
        if known is not None and known[0] is tensor:
            return known[1]
        if tensor.is_meta:
            raise NotCanonicalError(
                "a constant tensor on the meta device has no values to describe",
                hint="describe the model on a real device",
            )
        if tensor.is_sparse or tensor.is_quantized or tensor.layout is not torch.strided:
            raise NotCanonicalError(
                "a sparse or quantized constant tensor has no deterministic form",
                hint="register its dense values as a persistent buffer",
            )
        raw = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
        data = raw.reshape(-1).view(torch.uint8).numpy().tobytes() if raw.numel() else b""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._digests[id(tensor)] = (tensor, digest)
        return digest

    def generated_code(self, module: nn.Module) -> dict[str, Any]:
        """Return the code of modules whose forward was generated (torch.fx, TorchScript)."""
        import torch

        if isinstance(module, torch.fx.GraphModule):
            return {"generated code": module.code}
        if isinstance(module, torch.jit.ScriptModule):
            return {"generated code": module.code, "name": module.original_name}
        return {}


def _is_stream(kind: type) -> bool:
    return kind.__module__.startswith("torch.") and kind.__name__ in ("Stream", "Event")
