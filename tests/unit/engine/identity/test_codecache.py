"""What is remembered between two descriptions is never older than the code that runs."""

import subprocess
import sys
import types

import pytest
import torch
from torch import nn

from weightslab.engine.identity.architecture import describe_model

SCALE = 2
TABLE = {"act": torch.relu}


def helper(x):
    return x + 1


def other(x):
    return x - 1


def closed_over(k):
    def scaled(x, *, by=1, shift=0):
        return x * k * by + shift

    return scaled


class Net(nn.Module):
    def __init__(self, scaled):
        super().__init__()
        self.scaled = scaled

    def forward(self, x):
        return TABLE["act"](self.scaled(helper(x)) * SCALE)


def digest(model):
    return describe_model(model).digest


def set_cell(model):
    model.scaled.__closure__[0].cell_contents = 5


CHANGES = {
    "global": lambda m, patch: patch.setattr(sys.modules[__name__], "SCALE", 3),
    "global function": lambda m, patch: patch.setattr(sys.modules[__name__], "helper", other),
    "entry of a global": lambda m, patch: patch.setitem(TABLE, "act", torch.tanh),
    "code": lambda m, patch: patch.setattr(helper, "__code__", other.__code__),
    "defaults": lambda m, patch: patch.setattr(helper, "__defaults__", (1,)),
    "keyword defaults": lambda m, patch: m.scaled.__kwdefaults__.update(by=2),
    "closure cell": lambda m, patch: set_cell(m),
    "method of the class": lambda m, patch: patch.setattr(Net, "forward", lambda self, x: x),
    "method of the object": lambda m, patch: setattr(
        m, "forward", types.MethodType(lambda self, x: x, m)
    ),
    "attribute": lambda m, patch: setattr(m, "scaled", helper),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_after_the_first_description_is_seen(name, monkeypatch):
    model = Net(closed_over(3))
    before = [digest(model), digest(model)]
    CHANGES[name](model, monkeypatch)
    assert digest(model) not in before
    assert before[0] == before[1]


def test_undoing_a_change_gives_the_first_digest_again(monkeypatch):
    model = Net(closed_over(3))
    before = digest(model)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "SCALE", 3)
        assert digest(model) != before
    assert digest(model) == before


@pytest.mark.slow
def test_warm_caches_describe_like_a_fresh_process(tmp_path):
    source = tmp_path / "usernet.py"
    source.write_text(
        "import torch\nfrom torch import nn\nK = [1, [2, (3,)]]\n"
        "def helper(x, k=2): return x * K[0] * k\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.fc = nn.Linear(2, 2)\n"
        "    def forward(self, x): return helper(self.fc(x))\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from weightslab.engine.identity.architecture import describe_model\n"
        "import usernet\n"
        "warm = [describe_model(usernet.Net()).digest for _ in range(int(sys.argv[1]))]\n"
        "usernet.K = [1, [2, (4,)]]; describe_model(usernet.Net())\n"
        "usernet.K = [1, [2, (3,)]]; warm.append(describe_model(usernet.Net()).digest)\n"
        "print(*sorted(set(warm)))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program, times], capture_output=True, text=True, check=True
        ).stdout
        for times in ("0", "3")
    ]
    assert found[0] == found[1]
    assert len(found[0].split()) == 1


@pytest.mark.slow
def test_a_constant_of_many_levels_is_compared_without_recursion(monkeypatch):
    deep = []
    for _ in range(5000):
        deep = [deep]
    monkeypatch.setattr(sys.modules[__name__], "SCALE", deep)
    model = Net(helper)
    assert digest(model) == digest(model)
