"""A model inside wrappers, at any level, is the model; what changes the weights is seen."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,
    offload_wrapper,
)
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from weightslab.engine.identity.architecture import describe_model, outline


class Block(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.scale = scale

    def forward(self, x):
        return x + self.norm(self.fc(x)) * self.scale


class Net(nn.Module):
    def __init__(self, width=4, scale=2):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, scale) for _ in range(2))
        self.head = nn.Linear(width, 2, bias=False)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def digest(model):
    return describe_model(model).digest


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    store = tmp_path_factory.mktemp("gloo") / "store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def ddp(model):
    return nn.parallel.DistributedDataParallel(model)


def fsdp1(model, **options):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **options)


def fsdp2(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


def inside(wrap):
    def wrapped(model):
        model.blocks[0] = wrap(model.blocks[0])
        model.head = wrap(model.head)
        return model

    return wrapped


def compiled(model):
    return torch.compile(model, backend="eager")


def in_place(wrap):
    def wrapped(model):
        wrap(model.blocks[0])
        wrap(model)
        return model

    return wrapped


LOCAL = {
    "compile": compiled,
    "compile inside": inside(compiled),
    "compile in place": in_place(lambda m: m.compile(backend="eager")),
    "DataParallel": nn.DataParallel,
    "DataParallel inside": inside(nn.DataParallel),
    "checkpoint wrapper": checkpoint_wrapper,
    "checkpoint wrapper inside": inside(checkpoint_wrapper),
    "offload wrapper inside": inside(offload_wrapper),
    "AveragedModel": AveragedModel,
    "EMA": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
    "three deep": lambda m: nn.DataParallel(compiled(checkpoint_wrapper(m))),
    "average of compiled": lambda m: AveragedModel(compiled(m)),
    "wrapped inside wrapped": lambda m: compiled(inside(checkpoint_wrapper)(m)),
}
GLOO = {
    "DDP": ddp,
    "DDP inside": inside(ddp),
    "compiled DDP": lambda m: compiled(ddp(m)),
    "DDP of compiled parts": lambda m: ddp(inside(compiled)(m)),
    "FSDP1": lambda m: fsdp1(m, use_orig_params=True),
    "FSDP1 inside": inside(lambda m: fsdp1(m, use_orig_params=True)),
    "FSDP1 nested": lambda m: fsdp1(
        inside(lambda part: fsdp1(part, use_orig_params=True))(m), use_orig_params=True
    ),
    "FSDP1 flat": fsdp1,
    "FSDP1 flat nested": lambda m: fsdp1(inside(fsdp1)(m)),
    "FSDP2": fsdp2,
    "FSDP2 nested": in_place(fsdp2),
    "FSDP2 of compiled": lambda m: fsdp2(inside(checkpoint_wrapper)(m)),
}


@pytest.mark.parametrize("name", LOCAL)
def test_a_wrapped_model_is_the_model(name):
    assert digest(LOCAL[name](Net())) == digest(Net())
    assert digest(LOCAL[name](Net(scale=3))) == digest(Net(scale=3)) != digest(Net())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", GLOO)
def test_a_distributed_model_is_the_model(name, one_rank):
    assert digest(GLOO[name](Net())) == digest(Net())
    assert digest(GLOO[name](Net(scale=3))) == digest(Net(scale=3)) != digest(Net())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["DDP", "FSDP1", "FSDP1 flat", "FSDP2"])
def test_training_a_distributed_model_keeps_its_digest(name, one_rank):
    model = GLOO[name](Net())
    before = digest(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    assert digest(model) == before


@pytest.mark.parametrize("name", LOCAL)
def test_the_outline_looks_through_wrappers(name):
    assert outline(LOCAL[name](Net())) == outline(Net())


def parametrized(make):
    def wrapped(model):
        make(model.head)
        return model

    return wrapped


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight + 1


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2


SEEN = {
    "none": lambda m: m,
    "weight norm": parametrized(parametrizations.weight_norm),
    "weight norm of columns": parametrized(lambda p: parametrizations.weight_norm(p, dim=1)),
    "spectral norm": parametrized(parametrizations.spectral_norm),
    "spectral norm, 3 rounds": parametrized(
        lambda p: parametrizations.spectral_norm(p, n_power_iterations=3)
    ),
    "orthogonal": parametrized(parametrizations.orthogonal),
    "orthogonal by Cayley": parametrized(
        lambda p: parametrizations.orthogonal(p, orthogonal_map="cayley")
    ),
    "own": parametrized(lambda p: parametrize.register_parametrization(p, "weight", Symmetric())),
    "other own": parametrized(
        lambda p: parametrize.register_parametrization(p, "weight", Doubled())
    ),
    "both": parametrized(
        lambda p: [
            parametrize.register_parametrization(p, "weight", part)
            for part in (Symmetric(), Doubled())
        ]
    ),
    "pruned": parametrized(lambda p: prune.l1_unstructured(p, "weight", 0.5)),
    "pruned by channel": parametrized(lambda p: prune.ln_structured(p, "weight", 0.5, n=2, dim=0)),
}


def test_every_reparametrization_has_a_digest_of_its_own():
    found = {name: digest(change(Net())) for name, change in SEEN.items()}
    assert len(set(found.values())) == len(SEEN)
    assert found == {name: digest(change(Net())) for name, change in SEEN.items()}


def test_a_removed_reparametrization_leaves_no_trace():
    model = SEEN["pruned"](Net())
    prune.remove(model.head, "weight")
    other = SEEN["weight norm"](Net())
    parametrize.remove_parametrizations(other.head, "weight")
    assert digest(other) == digest(Net())
    assert sorted(dict(model.head.named_parameters())) == ["weight"]
    assert digest(model) == digest(Net())


def test_a_wrapped_parametrized_model_is_the_parametrized_model():
    change = SEEN["spectral norm"]
    assert digest(nn.DataParallel(compiled(change(Net())))) == digest(change(Net()))
