"""The module tree: order, nesting, names, ties, buffers and parameters."""

import pytest
from support.identity import case_name, differ, differ_if, differ_made, equal, made

ROLES = """
class Net(nn.Module):
    def __init__(self, swap=False):
        super().__init__()
        self.q = nn.Linear(4, 4, bias=swap); self.k = nn.Linear(4, 4, bias=not swap)
    def forward(self, x): return self.q(x) - self.k(x)
"""
TIES = """
class Net(nn.Module):
    def __init__(self, tied=None):
        super().__init__()
        self.first = nn.Embedding(10, 4); self.second = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        if tied: self.head.weight = getattr(self, tied).weight
    def forward(self, x): return self.head(self.first(x) + self.second(x))
"""
REUSE = """
class Net(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.a = nn.Linear(4, 4); self.b = self.a if share else nn.Linear(4, 4)
    def forward(self, x): return self.b(self.a(x))
"""
ORDER = """
class Net(nn.Module):
    def __init__(self, names):
        super().__init__()
        for name in names: setattr(self, name, nn.Linear(4, 4))
    def forward(self, x): return self.b(self.a(x))
"""
TENSORS = """
class Net(nn.Module):
    def __init__(self, kind="buffer", size=3):
        super().__init__()
        if kind == "parameter": self.m = nn.Parameter(torch.ones(size))
        else: self.register_buffer("m", torch.ones(size), persistent=kind == "buffer")
    def forward(self, x): return x * self.m
"""
OPTIONAL = """
class Net(nn.Module):
    def __init__(self, skip):
        super().__init__(); self.a = nn.Linear(4, 4); self.skip = nn.Identity() if skip else None
    def forward(self, x): return self.a(x) + (0 if self.skip is None else self.skip(x))
"""
AROUND = """
class Inner(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x): return self.fc(x)
class Net(nn.Module):
    def __init__(self): super().__init__(); self.model = Inner()
    def forward(self, x): return self.model(x)
"""
NAMED = "nn.Sequential(__import__('collections').OrderedDict({}))"
CASES = [
    differ("order of layers", "nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.1))", "nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.ReLU())"),
    differ("order of two linear layers", "nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))", "nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))"),
    differ("order without weights", "nn.Sequential(nn.ReLU(), nn.Tanh())", "nn.Sequential(nn.Tanh(), nn.ReLU())"),
    differ("order of named layers", NAMED.format("a=nn.ReLU(), b=nn.Linear(4, 4)"), NAMED.format("b=nn.Linear(4, 4), a=nn.ReLU()")),
    differ("depth", "nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])", "nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])"),
    differ("nesting", "nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.ReLU())", "nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU()))"),
    differ("an identity more", "nn.Sequential(nn.Linear(4, 4))", "nn.Sequential(nn.Linear(4, 4), nn.Identity())"),
    differ("sequence or list", "nn.Sequential(nn.Linear(4, 4))", "nn.ModuleList([nn.Linear(4, 4)])"),
    differ("order of a dict", "nn.ModuleDict(dict(a=nn.ReLU(), b=nn.Tanh()))", "nn.ModuleDict(dict(b=nn.Tanh(), a=nn.ReLU()))"),
    differ("order of a list", "nn.ModuleList([nn.ReLU(), nn.Tanh()])", "nn.ModuleList([nn.Tanh(), nn.ReLU()])"),
    differ("length of a parameter list", "nn.ParameterList([nn.Parameter(torch.zeros(2))] * 2)", "nn.ParameterList([nn.Parameter(torch.zeros(2))] * 3)"),
    differ_made("layers swapped", ROLES, "Net(False)", "Net(True)"),
    differ_if("roles swapped in forward", ROLES, "self.q(x) - self.k(x)", "self.k(x) - self.q(x)"),
    differ_if("layer renamed", ROLES, "self.k", "self.key"),
    differ_made("tied or not", TIES, "Net()", "Net('first')"),
    differ_made("tied to another", TIES, "Net('first')", "Net('second')"),
    differ_made("one layer twice", REUSE, "Net(True)", "Net(False)"),
    differ_made("order of registration", ORDER, "Net('ab')", "Net('ba')"),
    differ_made("persistent buffer", TENSORS, "Net()", "Net('constant')"),
    differ_made("size of a buffer", TENSORS, "Net()", "Net(size=4)"),
    differ_made("parameter or buffer", TENSORS, "Net()", "Net('parameter')"),
    differ_made("optional layer", OPTIONAL, "Net(True)", "Net(False)"),
    differ("a wrapper of one's own", made(AROUND), made(AROUND, "Inner()")),
    differ_if("forward of such a wrapper", AROUND, "self.model(x)", "self.model(x) * 2"),
    equal("a list given twice", "nn.ModuleList([nn.ReLU(), nn.Tanh()])", "nn.ModuleList((nn.ReLU(), nn.Tanh()))"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_module_trees(case):
    case.check()
