"""What a run does to a model, and what is put around it, is no other architecture."""

import copy
import io
import pickle

import pytest
import torch
from support.identity import case_name, differ, equal, equal_made, made, single_rank
from torch import nn

BLOCKS = """
import logging
log = logging.getLogger("x")
class Block(nn.Module):
    '''a block'''
    def __init__(self, d, act=F.relu):
        super().__init__()
        self.fc = nn.Linear(d, d); self.bn = nn.BatchNorm1d(d); self.drop = nn.Dropout(0.1)
        self.act = act; self.d = d; self.kinds = {"alpha", "beta", "gamma"}
    def forward(self, x): return x + self.drop(self.act(self.bn(self.fc(x))))
class Net(nn.Module):
    def __init__(self, d=4, n=2):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d) for _ in range(n)); self.head = nn.Linear(d, 2)
    def forward(self, x):
        for b in self.blocks: x = b(x)
        return self.head(x)
"""
LAZY = """
class Net(nn.Module):
    def __init__(self, lazy):
        super().__init__(); self.fc = nn.LazyLinear(3) if lazy else nn.Linear(4, 3)
    def forward(self, x): return self.fc(x)
def init(): n = Net(True); n(torch.randn(2, 4)); return n
"""
CACHES = """
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(4, 4)
        self.cache = None; self.calls = 0; self.seen = []; self.longest = 8
        self.register_buffer("mask", torch.ones(1, 1), persistent=False)
    def forward(self, x):
        self.calls += 1
        self.seen.append(float(x.sum()))
        if self.cache is None: self.cache = torch.arange(x.shape[0])
        if self.mask.shape[0] < x.shape[0]: self.mask = torch.ones(x.shape[0], 1)
        return self.fc(x) * self.mask[: x.shape[0]]
def used(): n = Net(); n(torch.randn(3, 4)); n(torch.randn(2, 4)); return n
"""
UNREAD = """
import uuid, time, logging
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(4, 4); self.run = uuid.uuid4().hex; self.t0 = time.time()
        self.log = logging.getLogger(self.run); self.rng = torch.Generator(); self.rng.seed()
    def forward(self, x): return self.fc(x)
def tagged():
    n = Net(); n.epoch = 17; n.best = 0.93; n.name = "foo"; n.handle = object(); n.current_step = 120; return n
"""
LOCKED = """
import threading
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4); self.lock = threading.Lock()
    def forward(self, x):
        with self.lock: return self.fc(x)
"""
PARENT = """
class Child(nn.Module):
    def __init__(self, parent): super().__init__(); self.parent = [parent]
    def forward(self, x): return x * self.parent[0].k
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.k = 2; self.fc = nn.Linear(4, 4); self.c = Child(self)
    def forward(self, x): return self.c(self.fc(x))
def seeded(n): torch.manual_seed(n); return Net()
"""
FRESH = made(BLOCKS)


def _after(change):
    return lambda: change(FRESH())


def _seeded(n):
    torch.manual_seed(n)
    return FRESH()


def _filled(value):
    def change(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        return model

    return change


def _ran(model):
    model(torch.randn(8, 4)).sum().backward()
    return model


def _trained(model):
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).sum().backward()
        optimizer.step()
    return model


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _loaded(**options):
    def change(model):
        model.load_state_dict(_seeded(5).state_dict(), **options)
        return model

    return change


def _on_meta():
    with torch.device("meta"):
        return FRESH()


def _frozen_and_back(model):
    return model.requires_grad_(False).requires_grad_(True)


def _observed(model):
    model.register_forward_hook(lambda m, i, o: None)
    model.register_full_backward_hook(lambda *a: None)
    model.register_forward_hook(lambda *a: None).remove()
    return model


def _compiled(model):
    return torch.compile(model, backend="eager")


def _compiled_part(model):
    model.blocks[0] = _compiled(model.blocks[0])
    return model


def _checkpointed_part(model):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model.blocks[0] = checkpoint_wrapper(model.blocks[0])
    return model


def _fsdp1(model):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)


def _fsdp2(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    return model


CASES = [
    equal("seed", lambda: _seeded(0), lambda: _seeded(1)),
    equal("weights of zero", FRESH, _after(_filled(0.0))),
    equal("weights of nan", FRESH, _after(_filled(float("nan")))),
    equal("made on the meta device", FRESH, _on_meta),
    equal("moved to the meta device", FRESH, _after(lambda m: m.to("meta"))),
    equal("eval mode", FRESH, _after(lambda m: m.eval())),
    equal("forward and backward", FRESH, _after(_ran)),
    equal("eval mode after a run", FRESH, _after(lambda m: _ran(_ran(m).eval()))),
    equal("training", FRESH, _after(_trained)),
    equal("gradients set to none", FRESH, _after(lambda m: (_ran(m).zero_grad(set_to_none=True), m)[1])),
    equal("channels last", "nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)"),
    equal("deep copy", FRESH, _after(copy.deepcopy)),
    equal("pickled", FRESH, _after(lambda m: pickle.loads(pickle.dumps(m)))),
    equal("saved whole", FRESH, _after(_saved)),
    equal("other weights loaded", FRESH, _after(_loaded())),
    equal("other weights assigned", FRESH, _after(_loaded(assign=True))),
    equal("half and back", FRESH, _after(lambda m: m.half().float())),
    equal("shared memory", FRESH, _after(lambda m: m.share_memory())),
    equal("frozen and thawed", FRESH, _after(_frozen_and_back)),
    equal("hooks that only look", FRESH, _after(_observed)),
    equal_made("lazy layer after its first call", LAZY, "Net(False)", "init()"),
    equal_made("counter list cache and grown mask", CACHES, "Net()", "used()"),
    equal_made("ids times loggers generators", UNREAD, "Net()", "Net()"),
    equal_made("notes hung on from outside", UNREAD, "Net()", "tagged()"),
    equal_made("lock", LOCKED, "Net()", "Net()"),
    equal_made("parent in a plain attribute", PARENT, "seeded(1)", "seeded(2)"),
    equal("data parallel", FRESH, _after(nn.DataParallel)),
    equal("compiled", FRESH, _after(_compiled)),
    equal("compiled in place", FRESH, _after(lambda m: (m.compile(backend="eager"), m)[1])),
    equal("compiled data parallel", FRESH, _after(lambda m: nn.DataParallel(_compiled(m)))),
    equal("compiled submodule", FRESH, _after(_compiled_part)),
    equal("checkpointed submodule", FRESH, _after(_checkpointed_part)),
    equal("averaged model", FRESH, _after(torch.optim.swa_utils.AveragedModel)),
]  # fmt: skip
DISTRIBUTED = [
    equal("ddp", FRESH, _after(nn.parallel.DistributedDataParallel)),
    equal("compiled ddp", FRESH, _after(lambda m: _compiled(nn.parallel.DistributedDataParallel(m)))),
    equal("ddp with unused parameters", FRESH, _after(lambda m: nn.parallel.DistributedDataParallel(m, find_unused_parameters=True))),
    differ("ddp around another model", lambda: nn.parallel.DistributedDataParallel(FRESH()), lambda: nn.parallel.DistributedDataParallel(made(BLOCKS, "Net(n=3)")())),
    equal("fsdp with original parameters", FRESH, _after(_fsdp1)),
    equal("fully_shard", FRESH, _after(_fsdp2)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_runs_and_wrappers(case):
    case.check()


@pytest.mark.parametrize("case", DISTRIBUTED, ids=case_name)
def test_wrappers_on_one_rank(case):
    with single_rank():
        case.check()
