"""Plain forms of live torch objects that code may read: modules, tensors, locks, generated code."""

from __future__ import annotations

import enum
import hashlib
import logging
import random
import sys
import threading
import types
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.declared import declared_shape
from weightslab.engine.identity.hfconfig import HfConfigs, is_hf_config
from weightslab.engine.identity.library import bare_name, class_mro, kinds, module_of
from weightslab.engine.identity.plain import to_plain
from weightslab.engine.identity.wrappers import unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from weightslab.engine.identity.expand import Shape

__all__ = ["LiveForms", "Places"]

_PLAIN: Final = kinds(
    type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range, slice,
    type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType,
)  # fmt: skip
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
# modules of the standard library whose objects are files, threads, queues, connections, positions
_RUNTIME_HOMES: Final = frozenset({
    "_asyncio", "_contextvars", "_io", "_queue", "_socket", "_ssl", "_thread", "asyncio",
    "concurrent", "contextvars", "io", "logging", "mmap", "multiprocessing", "queue",
    "sched", "selectors", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading",
})  # fmt: skip


@dataclass(slots=True)
class Places:
    """Where the modules of one description stand, also those outside the module tree.

    Attributes:
        by_id: id of a module -> its path, with the label of its tree in front.
        num_apart: trees found outside the module tree.
    """

    by_id: dict[int, str] = field(default_factory=dict)
    num_apart: int = 0


class LiveForms:
    """Knows the modules and tensors of one model by identity.

    Args:
        module_paths: id of a module -> its clean path.
        places: where any module was described; shared by all parts of one description.
        describe_apart: describes a module outside the tree under this label.

    Attributes:
        tensor_paths: id of a tensor -> its first name.
        configs: configs of Transformers that were met.
        weak: what could not be described exactly.
    """

    def __init__(
        self,
        module_paths: Mapping[int, str],
        places: Places,
        describe_apart: Callable[[nn.Module, str], dict[str, Any]],
    ) -> None:
        self._module_paths = module_paths
        self._places = places
        self._describe_apart = describe_apart
        self._digests: dict[int, tuple[Any, str]] = {}
        self.tensor_paths: dict[int, str] = {}
        self.configs = HfConfigs()
        self.weak: set[str] = set()

    def add_tensor(self, tensor: Any, path: str) -> None:
        """Remember the first name of a parameter or buffer."""
        self.tensor_paths.setdefault(id(tensor), path)

    def shape_of(self, value: Any) -> Shape | None:
        """Return the shape of a live object, None for what is not one."""
        kind = type(value)  # `isinstance` would ask the object itself, which may be a user's
        live = _kind_of_live(kind)
        if live == "module":
            return self._module_shape(value)
        if live == "tensor":
            return "dict", [("$tensor", self._tensor_form(value))]
        if live == "config":
            return "dict", [("$config", self.configs.label_of(value, self._plain))]
        return None if live == "" else _other_shape(value, kind)

    @staticmethod
    def glance(value: Any) -> Shape | None:
        """Return a shape that says only what kind of live object it is; nothing is remembered."""
        kind = type(value)
        live = _kind_of_live(kind)
        if live in ("module", "tensor", "config"):
            return "dict", [("$live", live)]
        return None if live == "" else _other_shape(value, kind)

    def _plain(self, value: Any, root: str) -> Any:
        return to_plain(value, root=root, special=self.shape_of, json=True)

    def _module_shape(self, module: nn.Module) -> Shape:
        module = unwrap(module)
        path = self._module_paths.get(id(module))
        if path is not None:
            return "dict", [("$module", path)]
        place = self._places.by_id.get(id(module))
        if place is not None:  # described before, or being described further out
            return "dict", [("$modules", place)]
        self._places.num_apart += 1
        label = f"apart {self._places.num_apart}"
        return "dict", [("$modules", self._describe_apart(module, label))]

    def _tensor_form(self, tensor: Any) -> Any:
        import torch

        path = self.tensor_paths.get(id(tensor))
        if path is not None:
            return {"path": path}
        spec = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        if issubclass(type(tensor), torch.nn.Parameter):
            return [*spec, "weights"]
        return [*spec, self.content_digest(tensor, f"a constant {spec[0]} {spec[1]}")]

    def content_digest(self, tensor: Any, where: str) -> str:
        """Return a digest of the values of a constant tensor; computed once per tensor.

        A tensor on the meta device has no values: it is marked weak under `where`.
        Raises: NotCanonicalError for a layout that cannot be read.
        """
        import torch

        if tensor.is_meta:
            self.weak.add(f"{where}: on the meta device, its values are not known")
            return "values not known"
        known = self._digests.get(id(tensor))
        if known is not None and known[0] is tensor:
            return known[1]
        kept = "" if tensor.layout is torch.strided else str(tensor.layout)
        state = hashlib.sha256(kept.encode())
        for part in _dense_parts(tensor):
            raw = part.detach().cpu().contiguous().resolve_conj().resolve_neg()
            if raw.numel():
                state.update(raw.reshape(-1).view(torch.uint8).numpy().data)
        digest = f"sha256:{state.hexdigest()}"
        self._digests[id(tensor)] = (tensor, digest)
        return digest

    def generated_code(self, module: nn.Module) -> dict[str, Any]:
        """Return the code of modules whose forward was generated (torch.fx, TorchScript)."""
        import torch

        kind = type(module)
        if issubclass(kind, torch.fx.GraphModule):
            return {"generated code": module.code}
        if issubclass(kind, torch.jit.ScriptModule):
            return {"generated code": module.code, "name": module.original_name}
        return {}


def _kind_of_live(kind: type) -> str | None:
    """Return `module`, `tensor`, `config`, an empty text for plain Python, else None."""
    if id(kind) in _PLAIN:
        return ""
    import torch
    from torch import nn

    if issubclass(kind, nn.Module):
        return "module"
    if issubclass(kind, torch.Tensor):
        return "tensor"
    return "config" if is_hf_config(kind) else None


def _other_shape(value: Any, kind: type) -> Shape | None:
    import torch

    if issubclass(kind, torch.jit.ScriptFunction):
        return "dict", [("$script", value.code)]
    np = sys.modules.get("numpy")
    if np is not None and issubclass(kind, np.ndarray) and value.dtype.kind in "?biufc":
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return "dict", [("$array", [value.dtype.str, list(value.shape), digest])]
    if issubclass(kind, (*_RUNTIME, torch.Generator)) or _is_stream(kind) or _is_running(kind):
        return "dict", [("$runtime", bare_name(kind))]
    if issubclass(kind, weakref.ref):
        return "dict", [("$weakref", weakref.ref.__call__(value))]
    return declared_shape(value)


def _is_running(kind: type) -> bool:
    """Say whether objects of this class belong to the process: an open file, a thread, a queue."""
    if issubclass(kind, (type, enum.Enum)):
        return False
    homes = {str(module_of(base)).partition(".")[0] for base in class_mro(kind)}
    return not homes.isdisjoint(_RUNTIME_HOMES)


def _dense_parts(tensor: Any) -> list[Any]:
    """Return dense tensors that hold all of a tensor's values."""
    import torch

    if tensor.is_quantized:
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scale = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
            return [tensor.int_repr(), scale]
        return [
            tensor.int_repr(),
            tensor.q_per_channel_scales(),
            tensor.q_per_channel_zero_points(),
        ]
    if tensor.layout is torch.strided:
        return [tensor]
    if tensor.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        coordinates = tensor.detach().to_sparse_coo().coalesce()
        return [coordinates.indices(), coordinates.values()]
    raise NotCanonicalError(
        f"a constant tensor of layout {tensor.layout} has no deterministic form",
        hint="register its dense values as a persistent buffer",
    )


def _is_stream(kind: type) -> bool:
    return str(module_of(kind)).startswith("torch.") and bare_name(kind) in ("Stream", "Event")
