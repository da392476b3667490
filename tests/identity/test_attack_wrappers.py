"""Attacks: modules around modules, and modules that are kept where no module list shows them."""

import pytest
from support.identity import (
    case_name,
    differ_if,
    differ_made,
    equal,
    equal_if,
    equal_made,
    made,
    net,
)

LORA = """
class LoRA(nn.Module):
    def __init__(self, base, rank=2, alpha=4.0, p=0.0):
        super().__init__()
        self.base = base; base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.scaling = alpha / rank; self.drop = nn.Dropout(p); self.merged = False
    def forward(self, x):
        if self.merged: return self.base(x)
        return self.base(x) + self.up(self.down(self.drop(x))) * self.scaling
def build(names=("0",), **k):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    for name in names: net[int(name)] = LoRA(net[int(name)], **k)
    return net
def thawed():
    net = build(); net[0].base.requires_grad_(True); return net
def merged():
    net = build(); net[0].merged = True; return net
def seeded(n):
    torch.manual_seed(n); return build()
def trained():
    net = build(); net(torch.ones(2, 4)).sum().backward(); return net
"""
PEFT = """
class Adapters(nn.Module):
    def __init__(self, base, active="a", enabled=True, **scales):
        super().__init__()
        self.base = base; self.active_adapter = active; self.enabled = enabled
        self.scales = dict(scales or {"a": 1.0})
        self.adapters = nn.ModuleDict({n: nn.Linear(4, 4, bias=False) for n in ("a", "b")})
    def __getattr__(self, name):
        try: return super().__getattr__(name)
        except AttributeError: return getattr(super().__getattr__("base"), name)
    def forward(self, x):
        out = self.base(x)
        if self.enabled: out = out + self.adapters[self.active_adapter](x) * self.scales["a"]
        return out
"""
EXPERTS = """
class Router(nn.Module):
    def __init__(self, experts, top_k, noise=0.0):
        super().__init__()
        self.gate = nn.Linear(4, experts); self.top_k = top_k; self.noise = noise
    def forward(self, x):
        logits = self.gate(x)
        if self.training: logits = logits + torch.randn_like(logits) * self.noise
        return logits.topk(self.top_k, dim=-1)
class Net(nn.Module):
    def __init__(self, experts=4, top_k=2, noise=0.0, act=nn.ReLU):
        super().__init__()
        self.router = Router(experts, top_k, noise)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), act()) for _ in range(experts))
        self.load = [0] * experts; self.tokens = 0
    def forward(self, x):
        weights, chosen = self.router(x)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mask = (chosen == i).any(-1)
            self.load[i] += int(mask.sum()); self.tokens += x.shape[0]
            if mask.any(): out[mask] += expert(x[mask])
        return out
def used():
    net = Net(); net(torch.randn(3, 4)); return net
"""
QUANT = """
class QLinear(nn.Module):
    def __init__(self, bits=8, scale=0.1, symmetric=True, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.register_buffer("packed", torch.randint(-8, 8, (4, 4), generator=g, dtype=torch.int8))
        self.bits = bits; self.scale = scale; self.zero_point = 0 if symmetric else 8
    def forward(self, x):
        w = (self.packed.float() - self.zero_point) * self.scale
        return F.linear(x, w.clamp(-2 ** (self.bits - 1), 2 ** (self.bits - 1) - 1))
"""
TORCH_TOOLS = """
from torch.nn.utils import prune
import torch.nn.utils.parametrize as parametrize
class Masked(prune.BasePruningMethod):
    PRUNING_TYPE = "unstructured"
    def __init__(self, every): self.every = every
    def compute_mask(self, t, default_mask):
        mask = default_mask.clone(); mask.view(-1)[:: self.every] = 0; return mask
class Clip(nn.Module):
    def __init__(self, top): super().__init__(); self.top = top
    def forward(self, w): return w.clamp(-self.top, self.top)
    def right_inverse(self, w): return w
def pruned(seed=0, amount=0.5):
    torch.manual_seed(seed); layer = nn.Linear(4, 4)
    prune.random_unstructured(layer, "weight", amount); return layer
def own(every):
    layer = nn.Linear(4, 4); Masked.apply(layer, "weight", every); return layer
def clipped(*tops):
    layer = nn.Linear(4, 4)
    for top in tops: parametrize.register_parametrization(layer, "weight", Clip(top))
    return layer
def dynamic(dtype=torch.qint8, seed=0):
    torch.manual_seed(seed)
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, dtype=dtype)
"""
EMA = """
import copy
class Net(nn.Module):
    def __init__(self, decay=0.9):
        super().__init__(); self.fc = nn.Linear(4, 4); self.ema = [copy.deepcopy(self.fc)]
        self.decay = decay
    @torch.no_grad()
    def update(self):
        for a, b in zip(self.ema[0].parameters(), self.fc.parameters()):
            a.mul_(self.decay).add_(b, alpha=1 - self.decay)
    def forward(self, x):
        self.update(); return self.ema[0](x)
def averaged(seed, n):
    torch.manual_seed(seed); m = torch.optim.swa_utils.AveragedModel(nn.Linear(4, 4))
    for _ in range(n): m.update_parameters(nn.Linear(4, 4))
    return m
def used():
    n = Net(); n(torch.ones(1, 4)); return n
"""
TEACHER = net(
    "self.fc(x) + TEACHERS['t'](x) + LIST[0](x)",
    before="TEACHERS = {'t': nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))}\nLIST = (nn.Linear(4, 4),)",
)
SHARED = """
class Net(nn.Module):
    def __init__(self, mode):
        super().__init__(); self.a = nn.Linear(4, 4); self.b = nn.Linear(4, 4)
        if mode == "weight": self.b.weight = self.a.weight
        if mode == "bias": self.b.bias = self.a.bias
        if mode == "both": self.b.weight = self.a.weight; self.b.bias = self.a.bias
        if mode == "module": self.b = self.a
    def forward(self, x): return self.b(self.a(x))
"""
HELD = """
class Net(nn.Module):
    def __init__(self, p=0.1, keys="ab", extra=0):
        super().__init__()
        self.table = {k: nn.Sequential(nn.Linear(4, 4 + extra), nn.Dropout(p)) for k in keys}
        self.fc = nn.Linear(4, 4)
    def forward(self, x):
        for k in self.table: x = self.table[k](x)
        return self.fc(x)
def seeded(n):
    torch.manual_seed(n); return Net()
"""
LISTS = """
class Net(nn.Module):
    def __init__(self, names="ab", rows=2):
        super().__init__()
        self.d = nn.ParameterDict([(n, nn.Parameter(torch.ones(rows))) for n in names])
        self.l = nn.ParameterList([nn.Parameter(torch.ones(2)), torch.ones(3)])
    def forward(self, x): return x * sum(p.sum() for p in self.d.values())
"""
BUFFERS = """
class Net(nn.Module):
    def __init__(self, base=10000.0, persistent=False, fill=1.0):
        super().__init__()
        self.register_buffer("freq", base ** -torch.arange(4.0), persistent=persistent)
        self.register_buffer("stats", torch.full((2,), fill))
        self.register_buffer("nothing", None)
    def forward(self, x): return x * self.freq
"""
FUNCTIONAL = """
from torch.func import functional_call
class Net(nn.Module):
    def __init__(self, k=1.0):
        super().__init__(); self.inner = nn.Linear(4, 4); self.k = k
    def forward(self, x):
        new = {n: p * self.k for n, p in self.inner.named_parameters()}
        return functional_call(self.inner, new, (x,))
"""
TRACED = net("self.fc(x).relu()") + (
    "def scripted(): return torch.jit.script(Net())\n"
    "def graph(): return torch.fx.symbolic_trace(Net())\n"
    "def held(): return nn.Sequential(torch.jit.script(Net()), nn.ReLU())\n"
)

CASES = [
    differ_made("lora rank", LORA, "build(rank=2)", "build(rank=3, alpha=6.0)"),
    differ_made("lora scaling", LORA, "build(alpha=4.0)", "build(alpha=8.0)"),
    differ_made("lora dropout", LORA, "build(p=0.0)", "build(p=0.1)"),
    differ_made("lora on another layer", LORA, "build(('0',))", "build(('2',))"),
    differ_made("lora on two layers", LORA, "build(('0',))", "build(('0', '2'))"),
    differ_made("lora with a trainable base", LORA, "build()", "thawed()"),
    differ_made("lora merged", LORA, "build()", "merged()"),
    differ_if("lora forward", LORA, "+ self.up(", "- self.up(", "build()"),
    equal_made("lora seeds", LORA, "seeded(1)", "seeded(2)"),
    equal_made("lora after a backward pass", LORA, "build()", "trained()"),
    differ_made("active adapter", PEFT, "Adapters(nn.Linear(4, 4))", "Adapters(nn.Linear(4, 4), 'b')"),
    differ_made("adapters off", PEFT, "Adapters(nn.Linear(4, 4))", "Adapters(nn.Linear(4, 4), enabled=False)"),
    differ_made("adapter scale", PEFT, "Adapters(nn.Linear(4, 4), a=1.0)", "Adapters(nn.Linear(4, 4), a=2.0)"),
    differ_made("adapters around another layer", PEFT, "Adapters(nn.Linear(4, 4))", "Adapters(nn.Bilinear(4, 4, 4))"),
    equal_made("adapters twice", PEFT, "Adapters(nn.Linear(4, 4))", "Adapters(nn.Linear(4, 4))"),
    differ_made("number of experts", EXPERTS, "Net(4)", "Net(5)"),
    differ_made("experts per token", EXPERTS, "Net(top_k=1)", "Net(top_k=2)"),
    differ_made("router noise", EXPERTS, "Net(noise=0.0)", "Net(noise=0.1)"),
    differ_made("kind of expert", EXPERTS, "Net(act=nn.ReLU)", "Net(act=nn.SiLU)"),
    equal_made("load counters of experts", EXPERTS, "Net()", "used()"),
    differ_made("bits of a quantised layer", QUANT, "QLinear(8)", "QLinear(4)"),
    differ_made("scale of a quantised layer", QUANT, "QLinear(scale=0.1)", "QLinear(scale=0.2)"),
    differ_made("zero point", QUANT, "QLinear()", "QLinear(symmetric=False)"),
    equal_made("quantised weights", QUANT, "QLinear(seed=0)", "QLinear(seed=1)"),
    differ_made("dtype of dynamic quantisation", TORCH_TOOLS, "dynamic()", "dynamic(torch.float16)"),
    equal_made("dynamically quantised weights", TORCH_TOOLS, "dynamic(seed=0)", "dynamic(seed=1)"),
    differ_made("pruned", TORCH_TOOLS, "nn.Linear(4, 4)", "pruned()"),
    equal_made("pruning mask", TORCH_TOOLS, "pruned(seed=0)", "pruned(seed=1)"),
    differ_if("parametrization code", TORCH_TOOLS, "w.clamp(-self.top, self.top)", "w.tanh() * self.top", "clipped(1)"),
    differ_made("parametrization constant", TORCH_TOOLS, "clipped(1)", "clipped(2)"),
    differ_made("two parametrizations", TORCH_TOOLS, "clipped(1)", "clipped(1, 1)"),
    differ_made("order of parametrizations", TORCH_TOOLS, "clipped(1, 2)", "clipped(2, 1)"),
    differ_made("ema decay", EMA, "Net(0.9)", "Net(0.99)"),
    equal_made("ema copy in a list after use", EMA, "Net()", "used()"),
    equal_made("averaged model", EMA, "averaged(1, 0)", "averaged(2, 3)"),
    differ_if("layer in a global dict", TEACHER, "Dropout(0.1)", "Dropout(0.2)"),
    differ_if("layer in a global tuple", TEACHER, "(nn.Linear(4, 4),)", "(nn.Linear(4, 4, bias=False),)"),
    differ_made("one tied tensor", SHARED, "Net('none')", "Net('weight')"),
    differ_made("which tensor is tied", SHARED, "Net('weight')", "Net('bias')"),
    differ_made("all tensors tied", SHARED, "Net('bias')", "Net('both')"),
    differ_made("tied tensors or one module", SHARED, "Net('both')", "Net('module')"),
    differ_made("dropout of layers in a dict", HELD, "Net(0.1)", "Net(0.2)"),
    differ_made("keys of layers in a dict", HELD, "Net(keys='ab')", "Net(keys='ac')"),
    differ_made("shape of layers in a dict", HELD, "Net()", "Net(extra=1)"),
    equal_made("weights of layers in a dict", HELD, "seeded(1)", "seeded(2)"),
    differ_made("order of a parameter dict", LISTS, "Net('ab')", "Net('ba')"),
    differ_made("shape in a parameter dict", LISTS, "Net(rows=2)", "Net(rows=3)"),
    equal_made("parameter dict twice", LISTS, "Net()", "Net()"),
    differ_made("constant buffer", BUFFERS, "Net(10000.0)", "Net(5e5)"),
    equal_made("content of a stored buffer", BUFFERS, "Net(fill=1.0)", "Net(fill=2.0)"),
    differ_made("functional call", FUNCTIONAL, "Net(1.0)", "Net(2.0)"),
    differ_if("scripted code", TRACED, "relu", "tanh", "scripted()"),
    differ_if("scripted code in a sequence", TRACED, "relu", "tanh", "held()"),
    equal_made("scripted twice", TRACED, "scripted()", "scripted()"),
    equal_if("scripted class elsewhere in its file", TRACED, "class Net", "\n\n\nclass Net", "scripted()"),
    differ_if("graph of code", TRACED, "relu", "tanh", "graph()"),
    equal_made("traced twice", TRACED, "graph()", "graph()"),
    equal("a deep copy of a graph", made(TRACED, "graph()"), made("import copy\n" + TRACED, "copy.deepcopy(graph())")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_modules_around_modules(case):
    case.check()
