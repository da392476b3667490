"""What a module keeps: attributes, constant tensors, hooks, parametrizations, types."""

import functools

import pytest
import torch
from support.identity import (
    PRELUDE,
    case_name,
    differ,
    differ_if,
    differ_made,
    equal_made,
    made,
    net,
)
from torch import nn
from torch.nn.utils import parametrizations, prune

KEPT = """
import enum
class Mode(enum.Enum):
    A = 1; B = 2
class Box:
    def __init__(self, **k): self.__dict__.update(k)
class Net(nn.Module):
    def __init__(self, v): super().__init__(); self.fc = nn.Linear(4, 4); self.v = v
    def forward(self, x): return helper(self.fc(x), self.v)
def helper(x, v): return x if v is None else x * 1
"""
VALUES = [
    ("int", "2", "3"), ("float", "1.0", "1.5"), ("last bit of a float", "0.1 + 0.2", "0.3"),
    ("bool", "True", "False"), ("none", "None", "0"), ("text", "'max'", "'avg'"),
    ("order of a list", "[1, 2]", "[2, 1]"), ("nested dict", "{'a': {'b': 1}}", "{'a': {'b': 2}}"),
    ("enum", "Mode.A", "Mode.B"), ("dtype", "torch.float16", "torch.bfloat16"),
    ("object", "Box(k=1)", "Box(k=2)"), ("slice", "slice(0, 2)", "slice(1, 2)"),
    ("array", "np.array([1., 2.])", "np.array([1., 3.])"), ("bool or int", "True", "1"),
    ("large int", "2**70", "2**70 + 1"), ("sign of zero", "0.0", "-0.0"), ("complex", "1j", "2j"),
    ("range", "range(3)", "range(4)"), ("set", "{1, 2}", "{1, 3}"),
    ("tensor", "torch.tensor([1., 2.])", "torch.tensor([1., 3.])"),
]  # fmt: skip
CONSTANT = """
class Net(nn.Module):
    def __init__(self, v):
        super().__init__(); self.register_buffer("m", torch.tensor(v), persistent=False)
    def forward(self, x): return x * self.m
"""
SYMMETRIC = """
import torch.nn.utils.parametrize
class Sym(nn.Module):
    def forward(self, W): return W.triu()
def make():
    layer = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Sym()); return layer
"""
TWO_CLASSES = """
class A(nn.Module):
    def forward(self, x): self.k = 1; return x
class B(nn.Module):
    def __init__(self, k): super().__init__(); self.k = k
    def forward(self, x): return x * self.k
class Net(nn.Module):
    def __init__(self, k): super().__init__(); self.a = A(); self.b = B(k)
    def forward(self, x): return self.b(self.a(x))
"""
GLOBAL_LAYER = net("LAYER(self.fc(x))", before="LAYER = nn.Dropout(0.1)")
IN_LIST = """
class Net(nn.Module):
    def __init__(self, p=0.1):
        super().__init__(); self.fc = nn.Linear(4, 4)
        self.layers = [nn.Sequential(nn.Linear(4, 4), nn.Dropout(p))]
    def forward(self, x):
        for layer in self.layers: x = layer(x)
        return self.fc(x)
def seeded(n): torch.manual_seed(n); return Net()
"""
TRACED = net("self.fc(x).relu()") + (
    "def graph(): return torch.fx.symbolic_trace(Net())\n"
    "def scripted(): return torch.jit.script(Net())\n"
)


class _Hook:
    def __init__(self, k):
        self.k = k

    def __call__(self, module, inputs, output):
        return output * self.k


def _scale(k, module, inputs, output):
    return output * k


def _in_place(module, inputs, output):
    output.mul_(2)


def _linear(*steps):
    """Return a builder: a Linear(4, 4) after some steps."""

    def build():
        layer = nn.Linear(4, 4)
        for step in steps:
            layer = step(layer) or layer
        return layer

    return build


def _hooked(hook):
    return _linear(lambda m: m.register_forward_hook(hook) and None)


def _frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    return model


def _quantised():
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})


PLAIN = _linear()
CASES = [
    *(differ_made(f"attribute {name}", KEPT, f"Net({a})", f"Net({b})") for name, a, b in VALUES),
    differ_made("values of a constant buffer", CONSTANT, "Net([1., 2.])", "Net([1., 3.])"),
    differ_made("attribute that another class writes", TWO_CLASSES, "Net(2)", "Net(3)"),
    differ_if("global layer", GLOBAL_LAYER, "Dropout(0.1)", "Dropout(0.5)"),
    differ_made("layers in a plain list", IN_LIST, "Net(0.1)", "Net(0.2)"),
    equal_made("weights of layers in a plain list", IN_LIST, "seeded(1)", "seeded(2)"),
    differ("dtype", PLAIN, _linear(lambda m: m.to(torch.bfloat16))),
    differ("dtype of one layer", "nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))", "nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).half())"),
    differ("frozen layer", "nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))", _frozen),
    differ("hook that changes the output", PLAIN, _hooked(lambda m, i, o: o * 2)),
    differ("hook that changes the output in place", PLAIN, _hooked(_in_place)),
    differ("hook before forward", PLAIN, _linear(lambda m: m.register_forward_pre_hook(lambda mod, a: (a[0] * 2,)) and None)),
    differ("state of a hook", _hooked(_Hook(2)), _hooked(_Hook(3))),
    differ("partial as hook", _hooked(functools.partial(_scale, 2)), _hooked(functools.partial(_scale, 3))),
    differ("hook that scales gradients", PLAIN, _linear(lambda m: m.register_full_backward_hook(lambda mod, gi, go: tuple(g * 0.5 for g in gi)) and None)),
    differ("hook of a parameter", PLAIN, _linear(lambda m: m.weight.register_hook(lambda g: g * 0.5) and None)),
    differ("weight norm", PLAIN, _linear(parametrizations.weight_norm)),
    differ("axis of weight norm", _linear(parametrizations.weight_norm), _linear(lambda m: parametrizations.weight_norm(m, dim=1))),
    differ("iterations of spectral norm", _linear(parametrizations.spectral_norm), _linear(lambda m: parametrizations.spectral_norm(m, n_power_iterations=3))),
    differ("spectral or orthogonal", _linear(parametrizations.spectral_norm), _linear(parametrizations.orthogonal)),
    differ("iterations of the old spectral norm", _linear(nn.utils.spectral_norm), _linear(lambda m: nn.utils.spectral_norm(m, n_power_iterations=3))),
    differ_if("code of a parametrization", SYMMETRIC, "triu", "tril", "make()"),
    differ("pruned layer", PLAIN, _linear(lambda m: prune.l1_unstructured(m, "weight", 0.5))),
    differ("quantised layer", "nn.Sequential(nn.Linear(4, 4))", _quantised),
    differ_if("traced graph", TRACED, "relu", "tanh", "graph()"),
    differ_if("scripted module", TRACED, "relu", "tanh", "scripted()"),
    equal_made("traced twice", TRACED, "graph()", "graph()"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_what_a_module_keeps(case):
    case.check()


def test_the_prelude_of_a_case_binds_what_the_cases_use():
    module = made("Net = nn.Identity")
    assert "import torch" in PRELUDE
    assert type(module()) is nn.Identity
