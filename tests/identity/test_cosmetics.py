"""How code is written, and where, does not count."""

import os
import subprocess
import sys

import pytest
from support.identity import PRELUDE, case_name, differ_if, equal, equal_if, made, net

BLOCKS = """
import logging, uuid
log = logging.getLogger("x")
class Block(nn.Module):
    '''a block'''
    def __init__(self, d, act=F.relu):
        super().__init__(); self.fc = nn.Linear(d, d); self.drop = nn.Dropout(0.1)
        self.act = act; self.d = d; self.kinds = {"alpha", "beta", "gamma"}
    def forward(self, x):
        # residual
        return x + self.drop(self.act(self.fc(x)))
class Net(nn.Module):
    def __init__(self, d=4, n=2):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d) for _ in range(n)); self.head = nn.Linear(d, 2)
    def forward(self, x):
        for b in self.blocks:
            x = b(x)
        return self.head(x)
    def pick(self): return sorted(self.blocks, key=lambda b: b.d)
"""
EDITS = [
    ("comment", "# residual", "# skip connection"),
    ("docstring", "'''a block'''", "'''Another text.'''"),
    ("no docstring", "    '''a block'''\n", ""),
    ("layout", "return x + self.drop(self.act(self.fc(x)))", "return (x\n            +   self.drop(self.act(self.fc(x))))"),
    ("type hints", "def forward(self, x):\n        #", "def forward(self, x: torch.Tensor) -> 'torch.Tensor':\n        #"),
    ("quotes", '{"alpha", "beta", "gamma"}', "{'gamma', 'beta', ('alpha')}"),
    ("spelling of a number", "nn.Dropout(0.1)", "nn.Dropout(1e-1)"),
    ("unused names", "import logging, uuid", "import logging, uuid, json\ndef unused(): return 42"),
    ("place in the file", "class Block", "\n\n\n\nX = 1\nclass Block"),
    ("unused method", "    def forward(self, x):\n        for b", "    def count(self): return len(self.blocks)\n    def forward(self, x):\n        for b"),
    ("local name", "for b in self.blocks:\n            x = b(x)", "for blk in self.blocks:\n            x = blk(x)"),
    ("constructor", "self.blocks = nn.ModuleList(Block(d) for _ in range(n))", "self.blocks = nn.ModuleList()\n        for _ in range(n): self.blocks.append(Block(d))"),
    ("initial weights", "self.head = nn.Linear(d, 2)", "self.head = nn.Linear(d, 2); nn.init.zeros_(self.head.weight)"),
    ("logging in the constructor", "self.head = nn.Linear(d, 2)", "self.head = nn.Linear(d, 2); log.debug('built')"),
    ("pass", "            x = b(x)\n", "            x = b(x);\n            pass\n"),
    ("order of attributes", "self.act = act; self.d = d", "self.d = d; self.act = act"),
    ("super with arguments", "        super().__init__()\n        self.blocks", "        super(Net, self).__init__()\n        self.blocks"),
]  # fmt: skip
ORDER = """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.fc = nn.Linear(4, 4)
    def first(self, x): return (lambda t: t + 1)(x)
    a = lambda self, x: x * 2
    b = lambda self, x: x * 3
    def forward(self, x): return self.a(self.first(x)) + self.b(self.fc(x))
"""
KEYWORDS = "F.dropout(self.fc(x), p=0.1, training=False)"
CASES = [
    *(equal_if(name, BLOCKS, old, new) for name, old, new in EDITS),
    differ_if("parameter name", BLOCKS, "def forward(self, x):\n        for b in self.blocks:\n            x = b(x)\n        return self.head(x)", "def forward(self, y):\n        for b in self.blocks:\n            y = b(y)\n        return self.head(y)"),
    equal_if("order of methods and lambdas", ORDER, "    a = lambda self, x: x * 2\n    b = lambda self, x: x * 3\n", "    b = lambda self, x: x * 3\n    a = lambda self, x: x * 2\n"),
    equal("another file", made(BLOCKS), made(BLOCKS)),
    equal("another module", made(BLOCKS), made(BLOCKS, name="usermod_elsewhere")),
    equal("folded constants", made(net("self.fc(x) * 6")), made(net("self.fc(x) * (2 * 3)"))),
    equal("import alias", made(net("F.relu(self.fc(x))")), made(net("FF.relu(self.fc(x))", before="import torch.nn.functional as FF"))),
    equal("order of keyword arguments", made(net(KEYWORDS)), made(net("F.dropout(self.fc(x), training=False, p=0.1)"))),
    equal("comprehension variable", made(net("sum([t * 2 for t in self.fc(x)])")), made(net("sum([u * 2 for u in self.fc(x)])"))),
]  # fmt: skip
SCRIPT = f"""{PRELUDE}{BLOCKS}
if __name__ == "__main__":
    from weightslab.engine.identity.architecture import describe_model
    print(describe_model(Net()).digest)
"""
PROCESSES = [
    ("hash seed", {"PYTHONHASHSEED": "4242"}, []),
    ("no docstrings and asserts", {}, ["-OO"]),
    ("one thread, another language and time zone", {"OMP_NUM_THREADS": "1", "LANG": "C", "TZ": "Asia/Tokyo"}, []),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_how_code_is_written_does_not_count(case):
    case.check()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "environment", "options"), PROCESSES)
def test_another_process_gives_the_same_digest(tmp_path, name, environment, options):
    from weightslab.engine.identity.architecture import describe_model

    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *options, str(script)],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == describe_model(made(BLOCKS)()).digest
