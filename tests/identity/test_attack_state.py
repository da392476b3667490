"""Attacks: what changes while a model runs is no identity; what it was configured with is."""

import copy
import io
import pickle

import pytest
import torch
from support.identity import case_name, differ_if, differ_made, equal, equal_made, made, net

TICK = """
def tick(m): m.calls += 1
def push(items, value): items.append(value)
def fill(table, key, value):
    if key not in table: table[key] = value
    return table[key]
class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__()
        self.fc = nn.Linear(4, 4); self.k = k; self.calls = 0; self.seen = []; self.table = {}
    def forward(self, x):
        tick(self); push(self.seen, self.calls)
        return self.fc(x) * self.k + fill(self.table, x.shape, 0)
"""
CHILDREN = """
class Block(nn.Module):
    def __init__(self, k): super().__init__(); self.fc = nn.Linear(4, 4); self.k = k; self.uses = 0
    def forward(self, x): return self.fc(x) * self.k if self.uses < 10**9 else x
class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__(); self.blocks = nn.ModuleList([Block(k), Block(1)]); self.head = Block(3)
    def forward(self, x):
        for block in self.blocks:
            block.uses += 1; x = block(x)
        self.head.uses = self.head.uses + 1
        return self.head(x)
"""
ALIAS = """
class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__(); self.fc = nn.Linear(4, 4); self.k = k; self.log = []; self.cache = {}
    def forward(self, x):
        log = self.log; log.append(len(log))
        cache = self.cache
        if x.shape not in cache: cache[x.shape] = torch.ones(x.shape)
        return self.fc(x) * self.k * cache[x.shape]
"""
OBJECTS = """
class Meter:
    def __init__(self, decay): self.decay = decay; self.value = 0.0; self.n = 0; self.all = []
    def update(self, v):
        self.n += 1; self.all.append(v); self.value = self.decay * self.value + v
class Stats: pass
class Net(nn.Module):
    def __init__(self, decay=0.9):
        super().__init__(); self.fc = nn.Linear(4, 4); self.meter = Meter(decay)
        self.stats = Stats(); self.stats.n = 0; self.stats.top = decay
    def forward(self, x):
        self.meter.update(float(x.sum())); self.stats.n += 1
        return self.fc(x) * self.meter.value + self.stats.top
"""
GLOBAL_CACHE = """
CACHE = {}
BUFFER = torch.zeros(4)
COUNT = 0
class Memo:
    def __init__(self): self.hits = 0; self.store = {}
    def get(self, key):
        self.hits += 1
        if key not in self.store: self.store[key] = torch.ones(4)
        return self.store[key]
MEMO = Memo()
def remember(n):
    global COUNT
    COUNT += 1
    if n not in CACHE: CACHE[n] = torch.ones(n)
def recall(n): return CACHE[n] if COUNT else None
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x):
        remember(4); BUFFER.add_(1)
        return self.fc(x) * recall(4) + BUFFER * 0 + MEMO.get(4)
"""
IMPORTED_CACHE = "import helpers_c\nfrom helpers_c import CACHE, put\n" + net(
    "put(4) + CACHE[4] + helpers_c.SLOTS['a'] + helpers_c.total()"
)
CACHE_FILE = {
    "helpers_c": "CACHE = {}\nSLOTS = {'a': 1}\nN = 0\n"
    "def put(n):\n    global N\n    N += 1; SLOTS['n'] = N\n    CACHE[n] = torch.ones(n)\n    return 1\n"
    "def total(): return N\n"
}
CLOSURE = """
def make(k=2):
    history = []; calls = 0; cache = {}
    class Net(nn.Module):
        def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
        def forward(self, x):
            nonlocal calls
            calls += 1; history.append(calls); cache[calls] = x
            return self.fc(x) * k
    return Net()
"""
DEFAULTS = """
def remember(x, seen=[], table={}, k=2):
    seen.append(1); table[len(seen)] = 1
    return x * k
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def forward(self, x, cache={}):
        cache["n"] = cache.get("n", 0) + 1
        return remember(self.fc(x))
"""
LAZY = """
class Net(nn.Module):
    size = None
    def __init__(self, k=2):
        super().__init__(); self.fc = nn.Linear(4, 4); self.k = k
    def forward(self, x):
        if not hasattr(self, "_mask"): self._mask = torch.ones(x.shape)
        if getattr(self, "_late", None) is None: setattr(self, "_late", 5)
        self.__dict__["_seen"] = x.shape
        object.__setattr__(self, "_raw", 1)
        type(self).size = x.shape
        self._seen, self._raw
        return self.fc(x) * self.k * self._mask
"""
COMPUTED = """
class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__(); self.fc = nn.Linear(4, 4); self.k = k
    def forward(self, x):
        for name in ("a", "b"): setattr(self, "_" + name, x.shape)
        return self.fc(x) * self.k + len(self._a)
"""
COUNTERS = """
import itertools, collections
class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__(); self.fc = nn.Linear(4, 4); self.k = k
        self.steps = itertools.count(); self.recent = collections.deque(maxlen=5)
        self.kinds = collections.Counter(); self.register_buffer("seen", torch.zeros(()), persistent=False)
    def forward(self, x):
        next(self.steps); self.recent.append(1); self.kinds["a"] += 1; self.seen += 1
        return self.fc(x) * self.k
"""
RUNTIME = """
import io, logging, queue, sys, threading, time, contextvars, concurrent.futures
class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__(); self.fc = nn.Linear(4, 4); self.k = k
        self.log = logging.getLogger(__name__); self.lock = threading.RLock()
        self.file = io.TextIOWrapper(io.BytesIO()); self.memory = io.StringIO()
        self.queue = queue.Queue(); self.out = sys.stderr; self.event = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(1); self.var = contextvars.ContextVar("v")
        self.bytes = io.BytesIO(); self.thread = threading.Thread(target=print)
        self.clock = time.monotonic; self.barrier = threading.Barrier(1)
    def forward(self, x):
        self.log.info("x"); self.file.write("x"); self.memory.write("y"); self.queue.put(1)
        self.out.write(""); self.event.set(); self.pool; self.var; self.bytes.write(b"a")
        self.thread; self.clock(); self.barrier
        with self.lock: return self.fc(x) * self.k
"""
SEED = """
class Net(nn.Module):
    def __init__(self, seed=1, note=1):
        super().__init__(); self.fc = nn.Linear(4, 4); self.seed = seed; self.note = note
    def forward(self, x):
        g = torch.Generator().manual_seed(self.seed)
        return self.fc(x) + torch.rand(4, generator=g)
"""
CONFIG = """
import dataclasses, enum
class Kind(enum.Enum): A = "a"; B = "b"
@dataclasses.dataclass
class Config:
    width: int = 4
    scale: float = 1.0
    kind: Kind = Kind.A
    layers: list = dataclasses.field(default_factory=lambda: [1, 2])
    def factor(self): return self.scale * 2
@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    scale: float = 1.0
class Net(nn.Module):
    def __init__(self, config):
        super().__init__(); self.config = config; self.fc = nn.Linear(4, 4)
    def forward(self, x): return self.fc(x) * self.config.scale
class Calls(Net):
    def forward(self, x): return self.fc(x) * self.config.factor()
"""
SLOTS = """
class Tool:
    __slots__ = ("k", "calls")
    def __init__(self, k): self.k = k; self.calls = 0
    def __call__(self, t): self.calls += 1; return t * self.k
class Net(nn.Module):
    def __init__(self, k=2): super().__init__(); self.fc = nn.Linear(4, 4); self.tool = Tool(k)
    def forward(self, x): return self.tool(self.fc(x))
"""
SPEC = """
class Rearrange(nn.Module):
    def __init__(self, pattern, **axes): super().__init__(); self.pattern = pattern; self.axes = axes
    def forward(self, x):
        left, right = self.pattern.split("->")
        return x.permute([left.split().index(n) for n in right.split()])
"""
BOUND = """
class Net(nn.Module):
    def __init__(self, fast):
        super().__init__(); self.fc = nn.Linear(4, 4); self.run = self.quick if fast else self.slow
    def quick(self, x): return self.fc(x)
    def slow(self, x): return self.fc(x) * 2
    def forward(self, x): return self.run(x)
"""
PARTIAL = """
class Net(nn.Module):
    def __init__(self, eps=1e-5, norm=nn.LayerNorm):
        super().__init__(); self.fc = nn.Linear(4, 4); self.norm = functools.partial(norm, eps=eps)
    def forward(self, x): return self.norm(4)(self.fc(x))
"""
HOSTILE = """
class Evil:
    def __init__(self, k): object.__setattr__(self, "k", k)
    def __repr__(self): raise RuntimeError("repr")
    def __eq__(self, other): raise RuntimeError("eq")
    def __hash__(self): raise RuntimeError("hash")
    def __getattr__(self, name): raise RuntimeError("getattr")
    def __bool__(self): raise RuntimeError("bool")
    def __len__(self): raise RuntimeError("len")
    def __iter__(self): raise RuntimeError("iter")
    def __reduce__(self): raise RuntimeError("reduce")
class Net(nn.Module):
    def __init__(self, v): super().__init__(); self.fc = nn.Linear(4, 4); self.v = v
    def forward(self, x): return self.fc(x) if self.v is None else x
"""


def _later(text, make="Net()", **options):
    """Return builders of a fresh model and of one that ran, from one import each."""
    fresh = made(text, make, **options)

    def ran():
        model = made(text, make, **options)()
        model(torch.ones(2, 4))
        model(torch.ones(1, 4))
        return model

    return fresh, ran


def _moved(change):
    return lambda: change(made(CHILDREN)())


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _loaded(model):
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    return model


CASES = [
    equal("helper that counts calls", *_later(TICK)),
    differ_made("constant beside a helper", TICK, "Net(2)", "Net(3)"),
    equal("counters of children", *_later(CHILDREN)),
    differ_made("constant of a child", CHILDREN, "Net(2)", "Net(3)"),
    equal("containers by a local name", *_later(ALIAS)),
    differ_made("constant beside local names", ALIAS, "Net(2)", "Net(3)"),
    equal("objects that count", *_later(OBJECTS)),
    differ_made("constant of an object that counts", OBJECTS, "Net(0.9)", "Net(0.99)"),
    equal("global caches and counters", *_later(GLOBAL_CACHE)),
    differ_if("code that fills a global cache", GLOBAL_CACHE, "CACHE[n] = torch.ones(n)", "CACHE[n] = torch.zeros(n)"),
    equal("caches of another file", *_later(IMPORTED_CACHE, files=CACHE_FILE)),
    equal("closures that count", *_later(CLOSURE, "make()")),
    differ_made("constant of such a closure", CLOSURE, "make(2)", "make(3)"),
    equal("defaults that are filled", *_later(DEFAULTS)),
    differ_if("default beside such a default", DEFAULTS, "k=2", "k=3"),
    equal("attributes made by the first call", *_later(LAZY)),
    differ_made("constant beside them", LAZY, "Net(2)", "Net(3)"),
    equal("attributes with computed names", *_later(COMPUTED)),
    differ_made("constant beside computed names", COMPUTED, "Net(2)", "Net(3)"),
    equal("counters of the standard library", *_later(COUNTERS)),
    differ_made("constant beside such counters", COUNTERS, "Net(2)", "Net(3)"),
    equal("files locks loggers threads", *_later(RUNTIME)),
    differ_made("constant beside them and files", RUNTIME, "Net(2)", "Net(3)"),
    differ_made("seed that forward reads", SEED, "Net(1)", "Net(2)"),
    equal_made("attribute that nothing reads", SEED, "Net(note=1)", "Net(note=2)"),
    differ_made("dataclass config", CONFIG, "Net(Config(scale=1.0))", "Net(Config(scale=2.0))"),
    differ_made("enum in a dataclass", CONFIG, "Net(Config(kind=Kind.A))", "Net(Config(kind=Kind.B))"),
    differ_made("frozen dataclass with slots", CONFIG, "Net(Slotted(1.0))", "Net(Slotted(2.0))"),
    differ_if("method of a dataclass", CONFIG, "self.scale * 2", "self.scale * 3", "Calls(Config())"),
    equal_made("dataclass twice", CONFIG, "Net(Config())", "Net(Config())"),
    differ_made("object with slots", SLOTS, "Net(2)", "Net(3)"),
    equal("object with slots that counts", *_later(SLOTS)),
    differ_made("pattern of axes", SPEC, "Rearrange('a b -> b a')", "Rearrange('b a -> b a')"),
    differ_made("bound method", BOUND, "Net(True)", "Net(False)"),
    equal("bound method copied", made(BOUND, "Net(True)"), lambda: copy.deepcopy(made(BOUND, "Net(True)")())),
    differ_made("partial with another keyword", PARTIAL, "Net(1e-5)", "Net(1e-6)"),
    differ_made("partial of another class", PARTIAL, "Net()", "Net(norm=nn.RMSNorm)"),
    equal_made("object that raises at everything", HOSTILE, "Net(Evil(1))", "Net(Evil(1))"),
    equal("double and back", made(CHILDREN), _moved(lambda m: m.double().float())),
    equal("on no device", made(CHILDREN), _moved(lambda m: m.to("meta"))),
    equal("pickled", made(CHILDREN), _moved(lambda m: pickle.loads(pickle.dumps(m)))),
    equal("saved whole", made(CHILDREN), _moved(_saved)),
    equal("other weights", made(CHILDREN), _moved(_loaded)),
    equal("eval mode of one child", made(CHILDREN), _moved(lambda m: (m.head.eval(), m)[1])),
    equal("compiled in place", made(CHILDREN), _moved(lambda m: (m.compile(backend="eager"), m)[1])),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_state_and_constants(case):
    case.check()
