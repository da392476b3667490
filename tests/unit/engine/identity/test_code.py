"""How user code is read: each case is one small module written to disk and imported."""

import importlib.util
import itertools
import linecache
import sys
import textwrap
from pathlib import Path

import pytest

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.source import find_source

PRELUDE = "import functools, math, types\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
NET = """
SCALE = 2
def helper(t): return t.relu()
class Base(nn.Module):
    def post(self, t): return t
class Net(Base):
    '''A net.'''
    def __init__(self, k=1):
        super().__init__()
        self.fc = nn.Linear(4, 4); self.k = k
    def post(self, t): return super().post(t)
    def forward(self, x, alpha=1.0):
        # comment
        hidden = self.fc(x)
        for i in range(2):
            hidden = helper(hidden) * SCALE
        return self.post(hidden * alpha)
"""
_numbers = itertools.count()


@pytest.fixture
def load(tmp_path):
    """Import code as a module called `name`; what it replaced in sys.modules comes back."""
    before = dict(sys.modules)

    def imported(code, name="usermod"):
        folder = tmp_path / str(next(_numbers))
        folder.mkdir()
        path = folder / f"{name}.py"
        path.write_text(PRELUDE + textwrap.dedent(code))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield imported
    for name in set(sys.modules) - set(before):
        if name.startswith(("usermod", "othermod")):
            del sys.modules[name]


def digest(module, *args):
    return describe_model(module.Net(*args)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# comment", "# another comment"),
        ("'''A net.'''", "'''Other words.'''"),
        ("    '''A net.'''\n", ""),
        ("def forward(self, x, alpha=1.0):", "def forward(self, x: int, alpha: float=1.0) -> int:"),
        ("alpha=1.0", "alpha=10e-1"),
        ("hidden", "h"),
        ("for i in", "for j in"),
        ("hidden = self.fc(x)", "hidden: object = (self\n            .fc(x))"),
        ("hidden = self.fc(x)", "hidden = self.fc(x); pass"),
        ("class Base", "\n\nUNUSED = 3\ndef unused(): return 4\nclass Base"),
        ("self.k = k", "self.k = k; self.extra = object()"),
        ("def forward", "def unused(self): return 1\n    def forward"),
        ("SCALE = 2", "SCALE = 1 + 1"),
        ("* SCALE", "* (SCALE)"),
        ("range(2)", "range(3 - 1)"),
        ("helper(t):", "helper(t) :"),
    ],
)
def test_how_code_is_written_does_not_count(load, old, new):
    assert old in NET
    assert digest(load(NET)) == digest(load(NET.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 2", "SCALE = 3"),
        ("t.relu()", "t.tanh()"),
        ("self.fc(x)", "self.fc(x) + x"),
        ("alpha=1.0", "alpha=2.0"),
        ("alpha", "beta"),
        ("range(2)", "range(3)"),
        ("range(2)", "range(2.0)"),
        ("def post(self, t): return t\n", "def post(self, t): return -t\n"),
        ("return super().post(t)", "return super().post(t) + 1"),
        ("helper(hidden) * SCALE", "SCALE * helper(hidden)"),
        ("def helper", "@functools.lru_cache(2)\ndef helper"),
        (
            "class Net(Base)",
            "class Mid(Base):\n    def post(self, t): return t * 2\nclass Net(Mid)",
        ),
    ],
)
def test_what_code_does_counts(load, old, new):
    assert old in NET
    assert digest(load(NET)) != digest(load(NET.replace(old, new)))


def test_attributes_count_if_forward_reads_them(load):
    assert digest(load(NET), 1) == digest(load(NET), 2)
    reads = NET.replace("* alpha", "* alpha * self.k")
    assert digest(load(reads), 1) != digest(load(reads), 2)


def test_a_computed_getattr_reads_everything(load):
    computed = NET.replace(
        "return self.post(hidden * alpha)", "return getattr(self, 'op_' + self.k)(x)"
    )
    computed += "    def op_a(self, x): return x.amax(-1)\n    def op_b(self, x): return x\n"
    base = digest(load(computed), "a")
    assert base != digest(load(computed), "b")
    assert base != digest(load(computed.replace("x.amax(-1)", "x.amax(0)")), "a")


def test_another_module_name_or_place_does_not_count(load):
    assert digest(load(NET)) == digest(load(NET, name="usermod_elsewhere"))


def test_an_import_alias_does_not_count(load):
    one = "class Net(nn.Module):\n    def forward(self, x): return F.relu(x)\n"
    other = "from torch.nn.functional import relu as r\n" + one.replace("F.relu", "r")
    assert digest(load(one)) == digest(load(other))


def test_a_decorator_counts_with_its_argument(load):
    code = """
    def times(k):
        def wrap(f):
            @functools.wraps(f)
            def inner(self, x): return f(self, x) * k
            return inner
        return wrap
    class Net(nn.Module):
        @times({})
        def forward(self, x): return x
    """
    assert digest(load(code.format(2))) != digest(load(code.format(3)))


def test_two_lambdas_in_one_line_are_told_apart(load):
    code = """
    f, g = lambda t: t.relu(), lambda t: t.tanh()
    class Net(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.act = act
        def forward(self, x): return self.act(x)
    """
    module = load(code)
    assert digest(module, module.f) != digest(module, module.g)
    assert describe_model(module.Net(module.f)).weak == ()


def test_closures_count_and_counters_in_them_do_not(load):
    code = """
    def make(k):
        calls = 0
        class Net(nn.Module):
            def forward(self, x):
                nonlocal calls
                calls += 1
                return x * k
        return Net
    Net = make({})
    """
    module = load(code.format(2))
    before = digest(module)
    module.Net()(1)
    assert digest(module) == before != digest(load(code.format(3)))


def test_a_global_cache_is_not_a_constant(load):
    code = """
    CACHE = {}
    COUNT = 0
    class Net(nn.Module):
        def forward(self, x):
            global COUNT
            COUNT += 1
            CACHE[COUNT] = x
            return CACHE[COUNT]
    """
    module = load(code)
    before = digest(module)
    module.Net()(1)
    assert digest(module) == before


def test_recursion_between_functions_is_described(load):
    code = """
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - {})
    class Net(nn.Module):
        def forward(self, x): return x * even(4)
    """
    assert digest(load(code.format(1))) == digest(load(code.format(1)))
    assert digest(load(code.format(1))) != digest(load(code.format(3)))


def test_an_import_inside_forward_is_followed(load):
    code = """
    class Net(nn.Module):
        def forward(self, x):
            from othermod import act
            return act(x)
    """
    load("def act(t): return t.relu()", name="othermod")
    first = digest(load(code))
    load("def act(t): return t.tanh()", name="othermod")
    assert digest(load(code)) != first


def test_a_module_that_is_imported_only_while_running_is_refused(load, tmp_path, monkeypatch):
    (tmp_path / "othermod_late.py").write_text("def act(t): return t")
    monkeypatch.syspath_prepend(tmp_path)
    code = """
    class Net(nn.Module):
        def forward(self, x):
            import othermod_late
            return othermod_late.act(x)
    """
    with pytest.raises(IdentityError, match=r"Net\.forward imports othermod_late.*top of the file"):
        digest(load(code))


def test_a_user_module_used_as_a_value_counts_with_all_it_defines(load):
    code = """
    import othermod
    class Net(nn.Module):
        def forward(self, x): return getattr(othermod, x)(x)
    """
    load("def act(t): return t", name="othermod")
    first = digest(load(code))
    load("# again\ndef act(t): return t", name="othermod")
    assert digest(load(code)) == first
    load("def act(t): return -t", name="othermod")
    assert digest(load(code)) != first


def test_source_edited_after_import_is_not_believed(load):
    module = load(NET)
    before = digest(module)
    path = Path(module.__file__)
    text = path.read_text().replace("self.fc(x)", "self.fc(x).relu()")
    path.write_text("# a new first line\n" + text)
    linecache.clearcache()
    found = describe_model(module.Net())
    assert (found.digest, found.weak) == (before, ())


def test_code_never_seen_with_its_source_is_weak(load):
    code = "class Net(nn.Module):\n    def forward(self, x): return x * 12345.5 + 54321\n"
    module = load(code)
    Path(module.__file__).write_text("x = 1\n")
    linecache.clearcache()
    assert describe_model(module.Net()).weak == ("Net.forward",)


def test_a_notebook_cell_equals_a_file(load):
    text, name = PRELUDE + NET, "<ipython-input-1-abc>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), namespace)
    found = describe_model(namespace["Net"]())
    assert (found.digest, found.weak) == (digest(load(NET)), ())


def test_keyword_order_counts_only_where_it_has_effects(load):
    code = "class Net(nn.Module):\n    def forward(self, x): return F.elu(x, {})\n"
    pure = [digest(load(code.format(a))) for a in ("alpha=1, inplace=x", "inplace=x, alpha=1")]
    assert pure[0] == pure[1]
    calls = [
        digest(load(code.format(a)))
        for a in ("alpha=x(), inplace=x.y()", "inplace=x.y(), alpha=x()")
    ]
    assert calls[0] != calls[1]


def test_find_source_finds_every_kind_of_scope(load):
    code = """
    class A:
        class B:
            def f(self): return [(lambda q: q)(i) for i in range(3)]
    async def g(): return 1
    """
    module = load(code)
    assert find_source(module.A.B.f.__code__).node.name == "f"
    assert find_source(module.g.__code__).text == "async def g(): return 1"
    inner = [c for c in module.A.B.f.__code__.co_consts if hasattr(c, "co_code")]
    assert all(find_source(c) is not None for c in inner)


SYNTAX = """
class Net(nn.Module):
    def forward(self, x, *args, k=1, **kw):
        import math as m
        with torch.no_grad() as g, self.lock: y = [a * b for a in x if (b := a) for c in a]
        try: z = {{1: x, **kw}}
        except (ValueError, TypeError) as error: raise RuntimeError(f"bad {{error!r:>{{k}}}}") from error
        else: z = {{*args}}
        finally: del y
        match x:
            case [1, *rest] | (2, rest): w = rest
            case {{"a": v, **more}}: w = more
            case Net(fc=q) if q: w = q
            case _ as other: w = other
        while not x: x, *tail = x; continue
        def inner(p, /, q=k, *, r: int = 2):
            nonlocal w
            w = lambda s=p: s + r
            yield from w
        class Local(nn.Module):
            attr = {0}
            def method(self): return self.attr
        assert m.pi, "text"
        return x[1:2, ..., None], -1j, b"x", inner, Local, {{k: v for k, v in z}}, x if k else w
"""


def test_all_of_the_syntax_has_a_form(load):
    one, same, other = (load(SYNTAX.format(value)) for value in ("1", "0x1", "2"))
    assert digest(one) == digest(same) != digest(other)
    assert describe_model(one.Net()).weak == ()
