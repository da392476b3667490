"""The models, configs and UID sets whose digests are frozen in hashes.json.

python tests/identity/golden/frozen.py      writes hashes.json again: a new scheme version
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = {
    "linear": "nn.Linear(4, 2)",
    "mlp": "nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Dropout(0.1))",
    "convolutions": "nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.MaxPool2d(2))",
    "recurrent": "nn.LSTM(4, 8, num_layers=2, bidirectional=True)",
    "attention": "nn.TransformerEncoderLayer(8, 2, 16, activation=F.gelu, norm_first=True)",
    "tables": "nn.ModuleDict({'a': nn.Embedding(10, 4, padding_idx=0), 'b': nn.ModuleList([nn.Identity()])})",
    "half": "nn.Linear(4, 2).half()",
}
CODE = '''
import enum, functools
SCALE = 2
class Kind(enum.Enum):
    SUM = 1; MEAN = 2
def helper(t, gain=0.5): return F.relu(t) * gain
def times(k):
    def wrap(f):
        @functools.wraps(f)
        def inner(self, x): return f(self, x) * k
        return inner
    return wrap
class Base(nn.Module):
    def post(self, t): return t
class Net(Base):
    """A net."""
    def __init__(self, k=1, kind=Kind.SUM):
        super().__init__()
        self.fc = nn.Linear(4, 4); self.k = k; self.kind = kind; self.calls = 0
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 0.5]), persistent=False)
        self.act = functools.partial(F.leaky_relu, negative_slope=0.1)
        self.table = {"a": (1, 2.0, None), "b": {3, 4}}
        self.fc.bias.requires_grad_(False)
    def post(self, t): return super().post(t) * self.mask
    @times(3)
    def forward(self, x, *, alpha=1.0):
        self.calls += 1
        hidden = [helper(self.act(self.fc(x))) * SCALE for _ in range(self.k)]
        match self.kind:
            case Kind.SUM: total = sum(hidden)
            case _: total = hidden[0]
        return self.post(total * alpha * len(self.table))
'''
MADE = {"user code": "Net()", "user code with other constants": "Net(2, Kind.MEAN)"}
CONFIGS = {
    "empty": {},
    "nested": {"lr": 1e-3, "opt": {"name": "adam", "betas": (0.9, 0.999)}, "on": True, "no": None},
    "odd": {"n": 2**70, "z": -0.0, "i": float("inf"), "b": b"\x00", "s": {3, 1}, 7: "\xe9"},
}
UIDS = {
    "none": [],
    "ints": [1, 2, 3],
    "texts": ["a", "b"],
    "mixed": [1, "2", "x"],
    "many": range(100_000),
    "edges": [-(2**63), 2**63 - 1, 2**64, "", "\xe9.png", "007"],
}


def digests():
    """Return kind -> name -> digest of everything that is frozen, `syntax` aside."""
    from support.identity import digest_of, expression, made

    models = {name: digest_of(expression(text)(), "model") for name, text in MODELS.items()}
    models |= {name: digest_of(made(CODE, make)(), "model") for name, make in MADE.items()}
    return {
        "models": models,
        "configs": {name: digest_of(value, "config") for name, value in CONFIGS.items()},
        "samples": {name: digest_of(value, "data") for name, value in UIDS.items()},
    }


def main():
    sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[2])]
    import digest_syntax

    from weightslab.engine.identity.canonical import SCHEME

    path = HERE / "hashes.json"
    # what only a newer Python can read: `python3.13 digest_syntax.py REPOSITORY` prints it
    syntax = json.loads(path.read_text())["syntax"] | digest_syntax.digests()
    found = {"scheme": SCHEME, **digests(), "syntax": syntax}
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
