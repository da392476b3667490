"""Cases of identity: two things, and whether they must have one digest or two.

A builder makes one of the things when it is called. Code is written to a file of its own and
imported, as a user's is; a case is `check()`ed in a test and listed by `digests()` for the runs in
fresh processes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import itertools
import shutil
import sys
import tempfile
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as users write it
from torch import nn

from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet

PRELUDE = (
    "import functools, math, types\nimport numpy as np\nimport torch, torch.nn as nn\n"
    "import torch.nn.functional as F\n"
)
_SPACE = {"torch": torch, "nn": nn, "F": F, "np": np, "functools": functools}
_numbers = itertools.count()


@functools.cache
def folder():
    """Return a folder of this process that is removed when it ends."""
    path = Path(tempfile.mkdtemp(prefix="identity-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def import_file(path, name):
    """Import the file `path` under the module name `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def import_code(text, *, name="usermod", files=None):
    """Write `text`, and `files` (module name -> text) beside it, and import all of them."""
    where = folder() / str(next(_numbers))
    for inner, content in {**(files or {}), name: text}.items():
        path = where / (inner.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PRELUDE + textwrap.dedent(content))
        module = import_file(path, inner)
    return module


def made(text, make="Net()", **options):
    """Return a builder: import `text`, evaluate `make` in it."""

    def build():
        return eval(make, vars(import_code(text, **options)))

    return build


def expression(text):
    """Return a builder of an expression over torch, nn, F, np and functools."""
    return lambda: eval(text, dict(_SPACE))


def net(returned, before=""):
    """Return the code of a `Net` with one layer `fc` whose forward returns `returned`."""
    return (
        f"{textwrap.dedent(before)}\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__(); self.fc = nn.Linear(4, 4)\n"
        f"    def forward(self, x): return {returned}\n"
    )


@dataclass(frozen=True)
class Case:
    """Two builders and a verdict.

    Attributes:
        same: whether both must have one digest.
        kind: `model`, `config` or `data`.
    """

    name: str
    same: bool
    left: object
    right: object
    kind: str = "model"

    def digests(self):
        """Build and describe the left side, then the right one: an edit of a file comes between."""
        left = digest_of(_quietly(self.left), self.kind)
        return left, digest_of(_quietly(self.right), self.kind)

    def check(self):
        left, right = self.digests()
        assert (left == right) is self.same, self.name


def _quietly(build):
    """Build without the warnings of libraries about what the case is there to use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


def digest_of(thing, kind):
    """Return the digest of a component."""
    if kind == "model":
        return describe_model(thing).digest
    if kind == "config":
        return describe_config(thing).digest
    return SampleSet.from_uids(thing).digest


def _builder(side):
    return expression(side) if isinstance(side, str) else side


def differ(name, left, right, **options):
    """Two things (builders, or texts of expressions) that must have two digests."""
    return Case(name, False, _builder(left), _builder(right), **options)


def equal(name, left, right, **options):
    """Two things (builders, or texts of expressions) that must have one digest."""
    return Case(name, True, _builder(left), _builder(right), **options)


def _edited(text, old, new):
    if old not in text:
        raise ValueError(f"{old!r} is not in the code of the case")
    return text.replace(old, new)


def differ_if(name, text, old, new, make="Net()", **options):
    """Code, and the same code with `old` replaced, that must have two digests."""
    return differ(name, made(text, make, **options), made(_edited(text, old, new), make, **options))


def equal_if(name, text, old, new, make="Net()", **options):
    """Code, and the same code with `old` replaced, that must have one digest."""
    return equal(name, made(text, make, **options), made(_edited(text, old, new), make, **options))


def differ_made(name, text, left, right, **options):
    """Two expressions over one code that must have two digests."""
    return differ(name, made(text, left, **options), made(text, right, **options))


def equal_made(name, text, left, right, **options):
    """Two expressions over one code that must have one digest."""
    return equal(name, made(text, left, **options), made(text, right, **options))


@contextlib.contextmanager
def single_rank():
    """Make this process the only rank of a gloo group."""
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as meet:
        dist.init_process_group("gloo", init_method=f"file://{meet}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def case_name(case):
    """Return the id of a case in the test report."""
    return case.name.replace(" ", "_")
