"""A model with most of what people edit, as source text that can be edited."""

from __future__ import annotations

import json
import runpy

from weightslab.engine.identity.architecture import describe_model

TOWER = """import torch
from torch import nn
from torch.nn import functional as F

GAIN = 2.0
EPS = 0.1

def scale(x, k=3):
    return x * k

def make_norm(eps):
    def norm(x):
        return x / (x.norm() + eps)
    return norm

class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(x).relu()

class Attention(nn.Module):
    def __init__(self, heads=2):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(8, 8)
        self.v = nn.Linear(8, 8)

    def forward(self, x):
        return self.q(x).softmax(-1) * self.v(x) / self.heads

class Block(nn.Module):
    residual = True

    def __init__(self, act=F.gelu):
        super().__init__()
        self.attn = Attention()
        self.act = act
        self.ff = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))

    def forward(self, x):
        x = self.attn(x) + x
        return self.act(self.ff(x)) * GAIN + (x if self.residual else 0)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.stem = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8, bias=False))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.experts = nn.ModuleList(Expert() for _ in range(4))
        self.router = nn.Linear(8, 4)
        self.norm = make_norm(EPS)
        self.head = nn.Linear(8, 50)
        self.register_buffer("mask", torch.ones(4), persistent=False)

    def forward(self, x):
        x = self.stem(self.embed(x))
        for block in self.blocks:
            x = block(x)
        x = self.norm(scale(x)) + sum(e(x) for e in self.experts)
        return self.head(x)
"""


def tower(path, *edits):
    """Write the source with `edits` to `path`, run it, and return the description as stored.

    An edit is (text, replacement) in the source, or a statement about the built model `m`.
    """
    source = TOWER
    for edit in edits:
        if isinstance(edit, tuple):
            assert edit[0] in source, f"nothing to replace: {edit[0]!r}"
            source = source.replace(*edit)
    path.write_text(source)
    names = runpy.run_path(str(path))
    model = names["Net"]()
    for edit in edits:
        if isinstance(edit, str):
            exec(edit, {"m": model, "torch": names["torch"]})
    return json.loads(json.dumps(describe_model(model).document))
