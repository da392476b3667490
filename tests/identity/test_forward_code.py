"""Code: what forward computes, with everything that it reaches."""

import pytest
from support.identity import case_name, differ, differ_if, differ_made, made, net

EXPRESSIONS = [
    ("residual", "self.fc(x)", "x + self.fc(x)"),
    ("activation", "F.relu(self.fc(x))", "F.gelu(self.fc(x))"),
    ("constant", "self.fc(x) * 2", "self.fc(x) * 3"),
    ("whole number or float", "self.fc(x) // 2", "self.fc(x) // 2.0"),
    ("order of operands", "x - self.fc(x)", "self.fc(x) - x"),
    ("precedence", "(x + self.fc(x)) * 0.5", "x + self.fc(x) * 0.5"),
    ("axis", "torch.cat([x, self.fc(x)], dim=0)", "torch.cat([x, self.fc(x)], dim=1)"),
    ("layer called twice", "self.fc(x)", "self.fc(self.fc(x))"),
    ("flag given", "F.dropout(self.fc(x), 0.1, training=self.training)", "F.dropout(self.fc(x), 0.1)"),
    ("text", "torch.einsum('bi,bj->bij', x, self.fc(x))", "torch.einsum('bi,bj->bji', x, self.fc(x))"),
    ("detached", "self.fc(x) + x", "self.fc(x) + x.detach()"),
    ("lambda", "(lambda t: t.relu())(self.fc(x))", "(lambda t: t.tanh())(self.fc(x))"),
    ("branch of training", "self.fc(x) if self.training else x", "self.fc(x) if not self.training else x"),
    ("subscript", "self.fc(x)[:, 0]", "self.fc(x)[:, 1]"),
    ("comparison", "self.fc(x) < x", "self.fc(x) <= x"),
]  # fmt: skip
HELPERS = net(
    "outer(self.fc(x)) * SCALE",
    before="SCALE = 2\ndef helper(t): return t.relu()\ndef outer(t): return helper(t)",
)
IMPORTED = "import helpers_x\nfrom helpers_x import act\n"
METHODS = """
class Base(nn.Module):
    factor = 2
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def post(self, t): return t
    @property
    def scale(self): return 2
    @staticmethod
    def pre(t): return t.relu()
    def forward(self, x, alpha=1.0): return self.post(self.fc(self.pre(x))) * self.scale * self.factor
class Net(Base): pass
"""
MIXINS = """
class A:
    def post(self, t): return t.relu()
class B:
    def post(self, t): return t.tanh()
class Net(A, B, nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x): return self.post(self.fc(x))
"""
COMPUTED_DEFAULT = """
K = 1.0
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x, alpha=K * 2): return self.fc(x) * alpha
"""
MADE = """
def make(k):
    class Net(nn.Module):
        def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
        def forward(self, x): return k(self.fc(x)) if callable(k) else self.fc(x) * k
    return Net()
"""
CALLS = """
f1 = lambda t: t.relu(); f2 = lambda t: t.tanh()
class Scaler:
    def __init__(self, k): self.k = k
    def __call__(self, t): return t * self.k
class Net(nn.Module):
    def __init__(self, act): super().__init__(); self.fc = nn.Linear(4, 4); self.act = act
    def forward(self, x): return self.act(self.fc(x))
"""
DECORATED = """
def times(k):
    def wrap(f):
        @functools.wraps(f)
        def inner(self, x): return f(self, x) * k
        return inner
    return wrap
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    @times(2)
    def forward(self, x): return self.fc(x)
"""
AUTOGRAD = """
class Fn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clamp(0)
    @staticmethod
    def backward(ctx, g): return g
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x): return Fn.apply(self.fc(x))
"""
PATCHED = (
    net("self.fc(x)")
    + """
def patched(self, x): return self.fc(x).relu()
def instance(): n = Net(); n.forward = types.MethodType(patched, n); return n
def klass(): Net.forward = patched; return Net()
def child(): n = Net(); n.fc.forward = types.MethodType(lambda self, x: x * 0, n.fc); return n
"""
)
BY_NAME = """
class Net(nn.Module):
    def __init__(self, kind): super().__init__(); self.kind = kind
    def op_max(self, x): return x.amax(-1)
    def op_avg(self, x): return x.mean(-1)
    def forward(self, x): return getattr(self, "op_" + self.kind)(x)
"""
LOOP = """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fs = nn.ModuleList([nn.Linear(4, 4)] * 3)
    def forward(self, x):
        for f in self.fs: x = f(x)
        return x
"""
SHADOWED = """
class Base(nn.Module):
    def post(self, t): return t.relu()
class Net(Base):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def post(self, t): return super().post(t) + 1
    def forward(self, x): return self.post(self.fc(x))
"""
IN_INIT = """
class Net(nn.Module):
    def __init__(self, k): super().__init__(); self.f = lambda t: t * k
    def forward(self, x): return self.f(x)
"""
NESTED = net(
    "go(self.fc(x))",
    before="""
def helper(t): return t.relu()
def go(x):
    def inner(y): return [helper(z) for z in y]
    return torch.stack(inner(x))
""",
)
SCRIPTED = net("helper(self.fc(x))", before="@torch.jit.script\ndef helper(t): return t.relu()")
SUBCLASS = """
class Net(nn.Conv2d):
    def forward(self, x): return super().forward(x) * 1
class Linear(nn.Linear):
    def forward(self, x): return super().forward(x).relu()
"""
SET_UP = """
TABLE = dict(a=F.relu)
def setup(f): TABLE["a"] = f
class Net(nn.Module):
    def __init__(self, f): super().__init__(); self.fc = nn.Linear(4, 4); setup(f)
    def forward(self, x): return TABLE["a"](self.fc(x))
"""
LRU = net("self.fc(x) * k()", before="@functools.lru_cache(None)\ndef k(): return 2")


def _executed(returned):
    def build():
        import torch
        from torch import nn

        space = {"nn": nn, "torch": torch, "__name__": "executed"}
        exec(net(returned), space)
        return space["Net"]()

    return build


def _imported(call, body):
    return made(IMPORTED + net(call), files={"helpers_x": f"def act(t): return {body}\n"})


CASES = [
    *(differ(name, made(net(left)), made(net(right))) for name, left, right in EXPRESSIONS),
    differ_if("global constant", HELPERS, "SCALE = 2", "SCALE = 3"),
    differ_if("helper two calls away", HELPERS, "t.relu()", "t.tanh()"),
    differ("imported helper", _imported("act(self.fc(x))", "t.relu()"), _imported("act(self.fc(x))", "t.tanh()")),
    differ("helper of an imported module", _imported("helpers_x.act(self.fc(x))", "t.relu()"), _imported("helpers_x.act(self.fc(x))", "t.tanh()")),
    differ_if("inherited method", METHODS, "post(self, t): return t", "post(self, t): return -t"),
    differ_if("property", METHODS, "scale(self): return 2", "scale(self): return 3"),
    differ_if("static method", METHODS, "t.relu()", "t.tanh()"),
    differ_if("class attribute", METHODS, "factor = 2", "factor = 4"),
    differ_if("default argument", METHODS, "alpha=1.0", "alpha=2.0"),
    differ_if("parameter renamed", METHODS, "alpha", "beta"),
    differ_if("computed default", COMPUTED_DEFAULT, "K = 1.0", "K = 2.0"),
    differ_if("order of mixins", MIXINS, "Net(A, B,", "Net(B, A,"),
    differ_made("number in a closure", MADE, "make(2)", "make(3)"),
    differ_made("function in a closure", MADE, "make(torch.relu)", "make(torch.tanh)"),
    differ_made("function as attribute", CALLS, "Net(F.relu)", "Net(F.gelu)"),
    differ_made("builtin as attribute", CALLS, "Net(torch.relu)", "Net(torch.tanh)"),
    differ_made("lambda without a file", CALLS, "Net(lambda t: t * 2)", "Net(lambda t: t * 3)"),
    differ_made("partial as attribute", CALLS, "Net(functools.partial(F.leaky_relu, negative_slope=0.1))", "Net(functools.partial(F.leaky_relu, negative_slope=0.3))"),
    differ_made("one of two lambdas in a line", CALLS, "Net(f1)", "Net(f2)"),
    differ_made("state of a callable", CALLS, "Net(Scaler(2))", "Net(Scaler(3))"),
    differ_if("code of a callable", CALLS, "t * self.k", "t + self.k", "Net(Scaler(2))"),
    differ_made("method caller", CALLS, "Net(__import__('operator').methodcaller('relu'))", "Net(__import__('operator').methodcaller('tanh'))"),
    differ_if("argument of a decorator", DECORATED, "@times(2)", "@times(3)"),
    differ_if("decorator taken away", DECORATED, "    @times(2)\n", ""),
    differ_if("backward of a function", AUTOGRAD, "return g", "return g * 0.5"),
    differ("same name in another module", made(net("self.fc(x)"), name="usermod_a"), made(net("-self.fc(x)"), name="usermod_b")),
    differ_made("forward replaced in an object", PATCHED, "Net()", "instance()"),
    differ_made("forward replaced in a class", PATCHED, "Net()", "klass()"),
    differ_made("forward replaced in a layer", PATCHED, "Net()", "child()"),
    differ_made("method by name", BY_NAME, "Net('max')", "Net('avg')"),
    differ_if("body of a method by name", BY_NAME, "x.amax(-1)", "x.amax(0)", "Net('max')"),
    differ_if("direction of a loop", LOOP, "in self.fs", "in reversed(self.fs)"),
    differ("code without a file", _executed("self.fc(x)"), _executed("self.fc(x).relu()")),
    differ_if("method behind super", SHADOWED, "t.relu()", "t.tanh()"),
    differ_made("closure from the constructor", IN_INIT, "Net(2)", "Net(3)"),
    differ_if("helper in a comprehension", NESTED, "t.relu()", "t.tanh()"),
    differ_if("scripted helper", SCRIPTED, "t.relu()", "t.tanh()"),
    differ_made("stride of a subclass", SUBCLASS, "Net(3, 8, 3)", "Net(3, 8, 3, stride=2)"),
    differ_if("code of a subclass", SUBCLASS, "* 1", "* 2", "Net(3, 8, 3)"),
    differ_made("class named like a library's", SUBCLASS, "nn.Linear(4, 4)", "Linear(4, 4)"),
    differ_made("entry of a global table", SET_UP, "Net(F.relu)", "Net(F.gelu)"),
    differ_if("cached helper", LRU, "return 2", "return 3"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_what_code_does_counts(case):
    case.check()
