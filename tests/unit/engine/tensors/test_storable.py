"""What has no place in a tensor file is refused by name, and told what to do."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from weightslab.engine.errors import FormatError, NotStorableError
from weightslab.engine.tensors.dtypes import dtype_name, item_size_bytes, torch_dtype
from weightslab.engine.tensors.header import ITEM_BITS
from weightslab.engine.tensors.image import build_image
from weightslab.engine.tensors.tree import split


class Wrapper(torch.Tensor):
    """A tensor subclass whose memory is that of another tensor."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("nothing is computed")


class Named(torch.Tensor):
    """A plain dense subclass."""


def sparse_csr():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the layout is in beta
        return torch.eye(2).to_sparse_csr()


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that nested tensors are a prototype
        return torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that quantised tensors are going away
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


REFUSED = {
    "meta": (lambda: torch.empty(2, device="meta"), "meta device"),
    "sparse coo": (lambda: torch.eye(2).to_sparse(), "not dense; call .to_dense"),
    "sparse csr": (sparse_csr, "not dense; call .to_dense"),
    "nested": (nested, "nested tensor"),
    "quantised": (quantised, "quantised.*dequantize"),
    "wrapper": (lambda: Wrapper(torch.ones(2)), "Wrapper, a tensor without memory"),
    "lazy parameter": (lambda: nn.LazyLinear(2).weight, "not initialised.*run one forward first"),
    "lazy buffer": (lambda: nn.LazyBatchNorm1d().running_mean, "run one forward first"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "complex128.*view_as_real"),
    "4 bits": (lambda: torch.empty(2, dtype=torch.int4), "int4"),
}


@pytest.mark.parametrize(("make", "text"), REFUSED.values(), ids=REFUSED)
def test_tensor_without_plain_bytes_is_refused_by_name(make, text):
    tensor = make()

    with pytest.raises(NotStorableError, match=rf"(?s)layer\.weight.*{text}"):
        build_image({"layer.weight": tensor})
    with pytest.raises(NotStorableError, match=rf"(?s)optimizer/state/0/sum.*{text}"):
        split({"optimizer": {"state": {0: {"sum": tensor}}}})


def test_sharded_tensor_is_refused_without_a_collective(tmp_path):
    dist = torch.distributed
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

        tensor = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Shard(0)])
        with pytest.raises(NotStorableError, match=r"'w' is sharded.*not supported yet"):
            build_image({"w": nn.Parameter(tensor)})
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "tensor",
    [nn.Parameter(torch.ones(2)), nn.Buffer(torch.ones(2)), torch.ones(2).as_subclass(Named)],
    ids=["parameter", "buffer", "subclass"],
)
def test_dense_subclass_is_stored(tensor):
    assert bytes(build_image({"w": tensor}).parts[1]) == b"\0\0\x80\x3f" * 2


@pytest.mark.parametrize("name", ITEM_BITS)
def test_dtype_and_name_are_each_others_inverse(name):
    if name.startswith("F6_"):
        with pytest.raises(FormatError, match=f"has no dtype {name}"):
            torch_dtype(name)
        return
    dtype = torch_dtype(name)
    assert dtype_name(dtype) == name
    assert item_size_bytes(dtype) * 8 == ITEM_BITS[name] * (2 if name == "F4" else 1)


def test_every_dtype_of_the_installed_safetensors_is_known():
    import safetensors.torch

    for name, dtype in safetensors.torch._TYPES.items():
        assert torch_dtype(name) is dtype
    assert {d for d in safetensors.torch._SIZE if d is not None} == {
        torch_dtype(name) for name in ITEM_BITS if not name.startswith("F6_")
    }


def test_unknown_dtype_name_is_refused():
    with pytest.raises(FormatError, match="unknown dtype 'F31'"):
        torch_dtype("F31")
