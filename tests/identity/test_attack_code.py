"""Attacks: ways to write, find, replace and move the code that runs."""

import copy
import linecache
import pickle
from pathlib import Path

import pytest
from support.identity import (
    PRELUDE,
    case_name,
    differ,
    differ_if,
    differ_made,
    equal,
    equal_if,
    equal_made,
    import_code,
    made,
    net,
)

TABLE = net(
    "OPS[self.kind](self.fc(x))",
    before="def up(t): return t * 2\ndef down(t): return t / 2\nOPS = {'up': up, 'down': down}",
).replace("self.fc = ", "self.kind = 'up'; self.fc = ")
REGISTRY = net(
    "REGISTRY['up'](self.fc(x))",
    before="""
REGISTRY = {}
def register(name):
    def keep(f): REGISTRY[name] = f; return f
    return keep
@register("up")
def up(t): return t * 2
""",
)
MATCH = """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4); self.kind = "a"
    def forward(self, x):
        match self.kind:
            case "a": return self.fc(x)
            case str(name) if name: return x
            case [first, *rest]: return first
            case {"k": v, **others}: return v
            case _: return -x
"""
LOOP = """
class Net(nn.Module):
    def __init__(self, late=False, n=3):
        super().__init__()
        self.fs = [(lambda t: t * i) if late else (lambda t, i=i: t * i) for i in range(n)]
    def forward(self, x):
        for f in self.fs: x = f(x)
        return x
"""
LAMBDAS = net("PAIR[0](self.fc(x))", before="PAIR = (lambda t: t.relu(), lambda t: t.tanh())")
MANAGED = net(
    "run(self.fc(x))",
    before="""
import contextlib
@contextlib.contextmanager
def scale(k):
    yield k * 2
def run(t):
    with scale(3) as k: return t * k
""",
)
GRADS = net("self.fc(x)").replace("    def forward", "    @torch.no_grad()\n    def forward")
CAST = net("self.fc(x)").replace(
    "    def forward", "    @torch.autocast('cpu', dtype=torch.bfloat16)\n    def forward"
)
PLAIN_DECORATOR = net(
    "self.fc(x)",
    before="""
def times(f):
    def inner(self, x): return f(self, x) * 2
    return inner
""",
).replace("    def forward", "    @times\n    def forward")
CLASS_DECORATOR = net(
    "self.fc(x)",
    before="""
def patched(cls):
    old = cls.forward
    def forward(self, x): return old(self, x) + 1
    cls.forward = forward
    return cls
""",
).replace("class Net", "@patched\nclass Net")
META = """
class Meta(type):
    def __new__(mcls, name, bases, space):
        space["gain"] = 2
        return super().__new__(mcls, name, bases, space)
class Net(nn.Module, metaclass=Meta):
    def forward(self, x): return x * self.gain
"""
DIAMOND = """
class Base(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def post(self, t): return t
class Left(Base):
    def post(self, t): return super().post(t) + 1
class Right(Base):
    def post(self, t): return super().post(t) * 2
class Net(Left, Right):
    def forward(self, x): return self.post(self.fc(x))
"""
CACHED = """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    @functools.cached_property
    def gain(self): return 2.0
    def forward(self, x): return self.fc(x) * self.gain
def used():
    n = Net(); n(torch.ones(1, 4)); return n
"""
DESCRIPTOR = """
class Gain:
    def __init__(self, k): self.k = k
    def __set_name__(self, owner, name): self.name = name
    def __get__(self, owner, kind): return 2 * self.k
class Net(nn.Module):
    gain = Gain(3)
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x): return self.fc(x) * self.gain
"""
DELEGATE = """
class Tool:
    def act(self, t): return t.relu()
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4); self.tool = Tool()
    def __getattr__(self, name):
        try: return super().__getattr__(name)
        except AttributeError: return getattr(self.tool, name)
    def forward(self, x): return self.act(self.fc(x))
"""
MANY = """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, *args, **options):
        x, *rest = args
        if (n := len(rest)) > 1: x = x * n
        def inner(y, *more): return self.fc(y, *more)
        parts = {k: v for k, v in options.items() if v is not None}
        total = sum(p for p in parts.values())
        return inner(x) + total
    async def stream(self, x):
        async for y in x: yield y
"""
GLOBALS = "V = 2\n" + net("use(self.fc(x), V)", before="def use(t, v): return t")
GLOBAL_VALUES = [
    ("int", "3"), ("float", "2.0"), ("bool", "True"), ("text", "'2'"), ("none", "None"),
    ("tuple", "(2,)"), ("nested dict", "{'a': [2]}"), ("frozenset", "frozenset({2})"),
    ("tensor", "torch.tensor([2])"), ("array", "np.array([2])"), ("dtype", "torch.half"),
    ("bytes", "b'2'"), ("range", "range(2)"), ("slice", "slice(2)"), ("complex", "2j"),
]  # fmt: skip
ELSEWHERE = "from helpers_a import act as go\n" + net("go(self.fc(x))")
ACT = {"helpers_a": "K = 1\ndef inner(t): return t.relu() * K\ndef act(t): return inner(t)\n"}
PACKAGE = "from .ops import act\n" + net("act(self.fc(x))")
BY_NAME = "import helpers_a\n" + net("getattr(helpers_a, self.kind)(self.fc(x))").replace(
    "self.fc = ", "self.kind = 'act'; self.fc = "
)
INSIDE = "import helpers_a\n" + net("self.fc(x)").replace(
    "return self.fc(x)", "\n        import helpers_a\n        return helpers_a.act(self.fc(x))"
)
INSIDE_FROM = INSIDE.replace(
    "import helpers_a\n        return helpers_a.act",
    "from helpers_a import act\n        return act",
)
PATCHED = (
    net("self.fc(x)")
    + """
def slow(self, x): return self.fc(x) * 2
def by_instance():
    n = Net(); n.forward = types.MethodType(slow, n); return n
def by_class():
    Net.forward = slow; return Net()
def by_lambda(k):
    n = Net(); n.forward = lambda x: x * k; return n
def by_partial(k):
    n = Net(); n.fc.forward = functools.partial(torch.mul, torch.tensor(k)); return n
def by_call():
    Net.__call__ = slow; return Net()
def hooked(k):
    n = Net(); n.fc.register_forward_hook(lambda m, i, o: o * k); return n
def hooked_twice(*ks):
    n = Net()
    for k in ks: n.fc.register_forward_hook(lambda m, i, o, k=k: o + k)
    return n
"""
)
MADE = """
def forward(self, x): return self.fc(x) * 2
def init(self): nn.Module.__init__(self); self.fc = nn.Linear(4, 4)
Net = type("Net", (nn.Module,), {"forward": forward, "__init__": init})
"""
GENERIC = """
import typing
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def __init__(self, k): self.k = k
    def use(self, t): return t * self.k
class Net(nn.Module, typing.Generic[T]):
    def __init__(self, k=2):
        super().__init__(); self.fc = nn.Linear(4, 4); self.box = Box[int](k)
    def forward(self, x: T) -> T: return self.box.use(self.fc(x))
"""
CHECKING = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Tensor
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x: "Tensor") -> "Tensor":
        if TYPE_CHECKING:
            from nowhere import Tensor
        y: "Tensor" = self.fc(x)
        return y
"""
FACTORY = """
def block(act, k):
    class Block(nn.Module):
        def forward(self, x): return act(x) * k
    return Block
def build(act=F.relu, k=2): return nn.Sequential(nn.Linear(4, 4), block(act, k)())
def branches(a, b): return nn.Sequential(block(F.relu, a)(), block(F.relu, b)())
"""
SUPER = """
class First(nn.Module):
    def forward(self, x): return x + 1
class Second(nn.Module):
    def forward(self, x): return x * 2
class Middle(First):
    def forward(self, x): return super().forward(x)
class Net(Middle):
    def forward(self, x): return super().forward(x)
"""
AFTER = net("self.fc(x)")


def _edited_file(replace):
    """Import code, describe nothing, then let the file say something else."""

    def build():
        module = import_code(AFTER + "# on disk\n")
        built = module.Net()
        path = Path(module.__file__)
        path.write_text("# first\n" + path.read_text().replace("self.fc(x)", replace))
        linecache.clearcache()
        return built

    return build


def _cell(name, text):
    def build():
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        space = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), space)
        return space["Net"]()

    return build


def _executed(text):
    def build():
        space = {"__name__": "executed"}
        exec(PRELUDE + text, space)
        return space["Net"]()

    return build


def _reloaded(text):
    def build():
        import_code(text)
        return import_code(text).Net()

    return build


CASES = [
    differ_if("function in a dispatch table", TABLE, "t * 2", "t * 3"),
    differ_if("key of a dispatch table", TABLE, "self.kind = 'up'", "self.kind = 'down'"),
    differ_if("entries of a dispatch table swapped", TABLE, "'up': up, 'down': down", "'up': down, 'down': up"),
    differ_if("function in a registry", REGISTRY, "t * 2", "t * 3"),
    differ_if("function by a computed name", BY_NAME, "'act'", "'inner'", files=ACT),
    differ("body of a function by a computed name", made(BY_NAME, files=ACT), made(BY_NAME, files={"helpers_a": ACT["helpers_a"].replace("relu", "tanh")})),
    differ_if("case of a match", MATCH, 'case "a"', 'case "b"'),
    differ_if("guard of a match", MATCH, "if name", "if not name"),
    differ_if("wildcard of a match", MATCH, "return -x", "return x"),
    equal_if("captures of a match renamed", MATCH, "rest", "tail"),
    equal_if("mapping capture of a match renamed", MATCH, "others", "more"),
    differ_made("closure over a loop, bound late", LOOP, "Net(False)", "Net(True)"),
    differ_made("lambdas of a loop", LOOP, "Net(n=3)", "Net(n=4)"),
    equal_made("lambdas of a loop twice", LOOP, "Net()", "Net()"),
    differ_if("which of two lambdas in a line", LAMBDAS, "PAIR[0]", "PAIR[1]"),
    differ_if("two lambdas in a line swapped", LAMBDAS, "lambda t: t.relu(), lambda t: t.tanh()", "lambda t: t.tanh(), lambda t: t.relu()"),
    equal_if("two lambdas in a line on two lines", LAMBDAS, "relu(), ", "relu(),\n        "),
    differ_if("context manager body", MANAGED, "yield k * 2", "yield k * 4"),
    differ_if("context manager argument", MANAGED, "scale(3)", "scale(4)"),
    equal_if("context manager alias renamed", MANAGED, "with scale(3) as k: return t * k", "with scale(3) as gain: return t * gain"),
    differ_if("no_grad taken away", GRADS, "    @torch.no_grad()\n", ""),
    differ_if("no_grad or enable_grad", GRADS, "no_grad", "enable_grad"),
    differ_if("body below no_grad", GRADS, "self.fc(x)", "-self.fc(x)"),
    equal_if("no_grad twice", GRADS, "self.fc(x)", "(self.fc(x))"),
    differ_if("dtype of autocast", CAST, "bfloat16", "float16"),
    differ_if("decorator that hides what it wraps", PLAIN_DECORATOR, "* 2", "* 3"),
    differ_if("method below a decorator", PLAIN_DECORATOR, "return self.fc(x)", "return -self.fc(x)"),
    differ_if("class decorator", CLASS_DECORATOR, "old(self, x) + 1", "old(self, x) - 1"),
    differ_if("method below a class decorator", CLASS_DECORATOR, "return self.fc(x)", "return -self.fc(x)"),
    differ_if("constant from a metaclass", META, '= 2', '= 3'),
    differ_if("order of bases", DIAMOND, "Net(Left, Right)", "Net(Right, Left)"),
    differ_if("middle of a diamond", DIAMOND, "* 2", "* 3"),
    differ_if("top of a diamond", DIAMOND, "return t\n", "return -t\n"),
    differ_if("chain of super", SUPER, "x + 1", "x + 2"),
    differ_if("base in a chain of super", SUPER, "Middle(First)", "Middle(Second)"),
    differ_if("cached property", CACHED, "2.0", "3.0"),
    equal_made("cached property after use", CACHED, "Net()", "used()"),
    differ_if("descriptor code", DESCRIPTOR, "2 * self.k", "3 * self.k"),
    differ_if("descriptor state", DESCRIPTOR, "Gain(3)", "Gain(4)"),
    differ_if("attribute of a delegate", DELEGATE, "relu", "tanh"),
    differ_if("walrus", MANY, "> 1", "> 2"),
    equal_if("walrus renamed", MANY, "(n := len(rest)) > 1: x = x * n", "(size := len(rest)) > 1: x = x * size"),
    equal_if("starred name renamed", MANY, "rest", "others"),
    differ_if("starred call", MANY, "(y, *more)", "(y)"),
    equal_if("unreached async method", MANY, "yield y", "yield -y"),
    equal_if("nested function renamed", MANY, "inner", "nested"),
    differ_if("comprehension filter", MANY, "is not None", "is None"),
    *(differ_if(f"global value {name}", GLOBALS, "V = 2", f"V = {value}") for name, value in GLOBAL_VALUES),
    differ_if("global tensor", GLOBALS.replace("V = 2", "V = torch.tensor([1.0, 2.0])"), "2.0", "3.0"),
    differ_if("global array", GLOBALS.replace("V = 2", "V = np.arange(3)"), "(3)", "(4)"),
    equal_if("global value computed", GLOBALS, "V = 2", "V = int('1') + 1"),
    equal_if("unread global", GLOBALS, "V = 2", "V = 2; W = 3"),
    equal_if("imported name", ELSEWHERE, "go", "run", files=ACT),
    differ("helper of a helper elsewhere", made(ELSEWHERE, files=ACT), made(ELSEWHERE, files={"helpers_a": ACT["helpers_a"].replace("relu", "tanh")})),
    differ("constant elsewhere", made(ELSEWHERE, files=ACT), made(ELSEWHERE, files={"helpers_a": ACT["helpers_a"].replace("K = 1", "K = 2")})),
    equal("helper elsewhere or here", made(ELSEWHERE, files=ACT), made(ACT["helpers_a"] + net("act(self.fc(x))"))),
    equal("import of a module or of a name", made(ELSEWHERE, files=ACT), made("import helpers_a\n" + net("helpers_a.act(self.fc(x))"), files=ACT)),
    differ("relative import", made(PACKAGE, name="userpkg.net", files={"userpkg.ops": ACT["helpers_a"]}), made(PACKAGE, name="userpkg.net", files={"userpkg.ops": ACT["helpers_a"].replace("relu", "tanh")})),
    equal("relative or absolute import", made(PACKAGE, name="userpkg.net", files={"userpkg.ops": ACT["helpers_a"]}), made(ELSEWHERE, files=ACT)),
    differ("import while running", made(INSIDE, files=ACT), made(INSIDE, files={"helpers_a": ACT["helpers_a"].replace("relu", "tanh")})),
    differ("import of a name while running", made(INSIDE_FROM, files=ACT), made(INSIDE_FROM, files={"helpers_a": ACT["helpers_a"].replace("relu", "tanh")})),
    equal("import while running twice", made(INSIDE, files=ACT), made(INSIDE, files=ACT)),
    equal("module imported again", made(AFTER), _reloaded(AFTER)),
    differ_made("forward of an instance", PATCHED, "Net()", "by_instance()"),
    differ_made("forward of a class", PATCHED, "Net()", "by_class()"),
    differ_made("call of a class", PATCHED, "Net()", "by_call()"),
    differ_made("closure of a patched forward", PATCHED, "by_lambda(2)", "by_lambda(3)"),
    differ_made("partial as forward", PATCHED, "by_partial(2)", "by_partial(3)"),
    differ_made("closure of a hook", PATCHED, "hooked(2)", "hooked(3)"),
    differ_made("order of hooks", PATCHED, "hooked_twice(1, 2)", "hooked_twice(2, 1)"),
    equal("patched instance copied", made(PATCHED, "by_instance()"), lambda: copy.deepcopy(made(PATCHED, "by_instance()")())),
    equal("class from type() twice", made(MADE), made(MADE)),
    differ_if("function of a class from type()", MADE, "* 2", "* 3"),
    equal("generic class twice", made(GENERIC), made(GENERIC, "Net[int]()")),
    equal_if("a generic base less", GENERIC, "Net(nn.Module, typing.Generic[T])", "Net(nn.Module)"),
    differ_made("state of a generic object", GENERIC, "Net(2)", "Net(3)"),
    equal_if("another annotation", CHECKING, 'y: "Tensor" = ', "y = "),
    equal("code for type checkers", made(CHECKING), made(net("self.fc(x)").replace("return self.fc(x)", "\n        y = self.fc(x)\n        return y"))),
    differ_made("function given to a factory", FACTORY, "build(F.relu)", "build(F.gelu)"),
    differ_made("number given to a factory", FACTORY, "build(k=2)", "build(k=3)"),
    differ_made("two classes of a factory", FACTORY, "branches(1, 2)", "branches(2, 1)"),
    equal_made("factory twice", FACTORY, "build()", "build()"),
    equal("edited file", made(AFTER + "# on disk\n"), _edited_file("self.fc(x).relu()")),
    equal("emptied file", made(AFTER + "# on disk\n"), _edited_file("")),
    equal("cells of two notebooks", _cell("<ipython-input-1-a>", PRELUDE + AFTER), _cell("/tmp/ipykernel_7/22.py", "\n\n" + PRELUDE + AFTER)),
    differ("edited cell", _cell("<ipython-input-2-a>", PRELUDE + AFTER), _cell("<ipython-input-3-a>", PRELUDE + net("-self.fc(x)"))),
    differ("executed text", _executed(net("self.fc(x) * 2")), _executed(net("self.fc(x) * 3"))),
    equal("executed text twice", _executed(net("self.fc(x) * 5")), _executed("# comment\n" + net("self.fc(x) * 5"))),
    equal("code after pickling", made(AFTER), lambda: pickle.loads(pickle.dumps(made(AFTER)()))),
    equal("windows line ends", made(AFTER), _cell("<crlf>", (PRELUDE + AFTER).replace("\n", "\r\n"))),
    equal("tabs", made(AFTER), made(AFTER.replace("    ", "\t"))),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_code_however_it_is_written(case):
    case.check()
