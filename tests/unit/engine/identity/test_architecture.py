"""Models that must get another digest, and models that must not."""

import copy
import functools
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from weightslab.engine.errors import FormatError, IdentityError
from weightslab.engine.identity.architecture import describe_model, digest_of_document, outline


def digest(model):
    return describe_model(model).digest


class Block(nn.Module):
    """A block."""

    def __init__(self, width, act=functional.relu):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.bn = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.1)
        self.act = act

    def forward(self, x):
        # residual
        return x + self.drop(self.act(self.bn(self.fc(x))))


class Net(nn.Module):
    def __init__(self, width=4, depth=2, act=functional.relu):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, act) for _ in range(depth))
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_digest_golden():
    assert digest(nn.Sequential(nn.Linear(4, 2), nn.ReLU())) == (
        "wl1:sha256:971c52f96bc4ef258940b862cba9e752bc94ff543661905133c9e7dc50fb5ad3"
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda: nn.Linear(8, 4), lambda: nn.Linear(8, 5)),
        (lambda: nn.Linear(4, 4), lambda: nn.Linear(4, 4, bias=False)),
        (lambda: nn.Linear(4, 4), lambda: nn.Linear(4, 4).double()),
        (lambda: nn.Conv2d(3, 8, (3, 5)), lambda: nn.Conv2d(3, 8, (5, 3))),
        (lambda: nn.Conv2d(3, 8, 3), lambda: nn.Conv2d(3, 8, 3, stride=2)),
        (lambda: nn.Dropout(0.1), lambda: nn.Dropout(0.2)),
        (lambda: nn.Dropout(0.1), lambda: nn.Dropout2d(0.1)),
        (lambda: nn.BatchNorm2d(4), lambda: nn.BatchNorm2d(4, momentum=None)),
        (lambda: nn.LSTM(4, 8, 2), lambda: nn.LSTM(4, 8, 2, dropout=0.3)),
        (lambda: nn.MultiheadAttention(8, 2), lambda: nn.MultiheadAttention(8, 4)),
        (lambda: nn.Softmax(1), lambda: nn.Softmax(-1)),
        (lambda: nn.ModuleList([nn.ReLU()]), lambda: nn.Sequential(nn.ReLU())),
        (lambda: Net(depth=2), lambda: Net(depth=3)),
        (lambda: Net(act=functional.relu), lambda: Net(act=functional.gelu)),
        (lambda: Net(act=torch.relu), lambda: Net(act=torch.tanh)),
        (lambda: Net(act=lambda t: t * 2), lambda: Net(act=lambda t: t * 3)),
        (
            lambda: Net(act=functools.partial(functional.elu, alpha=1)),
            lambda: Net(act=functools.partial(functional.elu, alpha=2)),
        ),
        (lambda: nn.Linear(4, 4), lambda: parametrizations.weight_norm(nn.Linear(4, 4))),
        (
            lambda: nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()}),
            lambda: nn.ModuleDict({"b": nn.Tanh(), "a": nn.ReLU()}),
        ),
        (lambda: nn.Linear(4, 4), lambda: nn.Linear(4, 4).requires_grad_(False)),
    ],
)
def test_different_models_differ(left, right):
    assert digest(left()) != digest(right())


def forward_backward(model):
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).sum().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    "change",
    [
        forward_backward,
        lambda m: m.eval(),
        copy.deepcopy,
        lambda m: m.to("meta"),
        lambda m: m.half().float(),
        lambda m: m.requires_grad_(False).requires_grad_(True),
        lambda m: (m.register_forward_hook(lambda *args: None), m)[1],
        lambda m: (setattr(m, "epoch", 17), setattr(m, "best", object()), m)[2],
        nn.DataParallel,
        lambda m: torch.compile(m, backend="eager"),
        lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
        torch.optim.swa_utils.AveragedModel,
        lambda m: (m.compile(backend="eager"), m)[1],
    ],
)
def test_what_is_not_architecture_does_not_count(change):
    assert digest(change(Net())) == digest(Net())


def test_wrappers_inside_the_tree_are_looked_through():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = Net()
    model.blocks[0] = checkpoint_wrapper(model.blocks[0])
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    assert digest(model) == digest(Net())


class Counting(nn.Module):
    """Counters, caches and histories that forward keeps."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.calls, self.cache, self.history, self.seen = 0, None, [], {}
        self.scale = torch.ones(1)
        self.register_buffer("mask", torch.ones(1), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.history.append(float(x.sum()))
        self.seen[len(x)] = True
        self.scale.mul_(0.9)
        if self.cache is None:
            self.cache = torch.arange(len(x))
        if len(self.mask) < len(x):
            self.mask = torch.ones(len(x))
        return self.fc(x) * self.mask[: len(x), None] * self.scale


def test_state_that_forward_keeps_is_not_architecture():
    used = Counting()
    used(torch.randn(3, 4))
    assert digest(used) == digest(Counting())


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.id, self.started_at = os.urandom(8), time.time()
        self.log, self.lock = logging.getLogger("x"), threading.Lock()

    def forward(self, x):
        with self.lock:
            self.log.debug("called")
            return x


def test_locks_and_loggers_and_what_forward_never_reads_do_not_count():
    assert digest(Running()) == digest(Running())


class Scaler:
    def __init__(self, factor):
        self.factor, self.calls = factor, 0

    def __call__(self, x):
        self.calls += 1
        return x * self.factor


def test_a_helper_object_counts_with_its_constants_but_not_its_counters():
    used = Net(act=Scaler(2))
    used(torch.randn(8, 4))
    assert digest(used) == digest(Net(act=Scaler(2)))
    assert digest(used) != digest(Net(act=Scaler(3)))


class Tied(nn.Module):
    def __init__(self, other):
        super().__init__()
        self.a, self.b = nn.Embedding(10, 4), nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        if other is not None:
            self.head.weight = getattr(self, other).weight

    def forward(self, x):
        return self.head(self.a(x) + self.b(x))


def test_ties_count_and_name_what_they_are_tied_to():
    assert len({digest(Tied(None)), digest(Tied("a")), digest(Tied("b"))}) == 3


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def test_a_users_own_wrapper_is_architecture():
    assert digest(Wrapper(nn.Linear(2, 2))) != digest(nn.Linear(2, 2))
    assert "module" in outline(Wrapper(nn.Linear(2, 2)))


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.register_buffer("m", torch.tensor(value), persistent=False)

    def forward(self, x):
        return x * self.m


def test_values_of_constants_that_no_state_dict_holds_count():
    assert digest(Constant([1.0, 2.0])) != digest(Constant([1.0, 3.0]))


def test_a_constant_on_meta_is_marked_weak_by_name():
    found = describe_model(Constant([1.0]).to("meta"))
    assert found.weak == ("m: on the meta device, its values are not known",)
    assert found.digest != digest(Constant([1.0]))
    assert found.digest != digest(Constant([1.0, 2.0]).to("meta"))


def test_an_uninitialised_lazy_layer_says_run_one_forward_first():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(IdentityError, match=r"0\.weight .*run one forward first"):
        describe_model(model)
    model(torch.randn(2, 4))
    assert digest(model) == digest(nn.Sequential(nn.Linear(4, 3)))


class Opaque:
    __slots__ = ("it",)

    def __init__(self):
        self.it = (i for i in ())


def test_what_cannot_be_described_is_named_by_path_and_type():
    model = Net()
    model.blocks[1].act = Opaque()
    with pytest.raises(IdentityError, match=r"blocks\.1\.act.*builtins\.generator"):
        describe_model(model)


class Hostile:
    def __init__(self, k):
        self.k = k

    def __call__(self, x):
        return x * self.k

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None
    __repr__ = __str__ = __bool__ = __call__


def test_a_hostile_object_is_read_without_asking_it():
    assert digest(Net(act=Hostile(1))) == digest(Net(act=Hostile(1)))
    assert digest(Net(act=Hostile(1))) != digest(Net(act=Hostile(2)))


@pytest.mark.parametrize("model", [5, "net", [nn.ReLU()], nn.ReLU, {"a": 1}, {1: nn.ReLU()}])
def test_not_a_model_is_a_type_error(model):
    with pytest.raises(TypeError, match=r"torch\.nn\.Module or a dict"):
        describe_model(model)


def test_an_empty_dict_of_models_is_refused():
    with pytest.raises(IdentityError, match="empty dict"):
        describe_model({})


def test_a_dict_of_models_is_sorted_by_name():
    def parts():
        return {"g": nn.Linear(2, 3), "d": nn.Linear(3, 1)}

    one, two = parts(), dict(reversed(parts().items()))
    assert digest(one) == digest(two) != digest({"g": parts()["d"], "d": parts()["g"]})
    assert describe_model(one).class_names == {"g": "torch.nn.Linear", "d": "torch.nn.Linear"}
    assert set(outline(one)) == {"g:", "d:"}


def test_a_document_decodes_to_its_own_digest_after_json():
    model = Net(act=functools.partial(functional.elu, alpha=float("inf")))
    model.table = {1: (2.0, -0.0), "x": None}
    found = describe_model(model)
    stored = json.loads(json.dumps(found.document, allow_nan=False, sort_keys=True))
    assert digest_of_document(stored) == found.digest
    stored["identity"]["models"][0][1]["modules"][0]["path"] = "other"
    assert digest_of_document(stored) != found.digest


def test_a_document_without_identity_is_a_format_error():
    with pytest.raises(FormatError):
        digest_of_document({"schema": "x"})


def test_sources_and_versions_stand_beside_the_identity():
    found = describe_model(Net())
    assert "return self.head(x)" in found.document["sources"][""]["Net.forward"]
    assert found.document["versions"]["torch"] == torch.__version__
    assert found.weak == ()


def test_text_shows_layers_and_counts():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Dropout(0.5), nn.Linear(8, 10))
    model[2].requires_grad_(False)
    assert describe_model(model).text == textwrap.dedent("""\
        Sequential()
          0: Conv2d(1 -> 8, kernel_size=(3, 3))  [80]
          1: Dropout(p=0.5)
          2: Linear(8 -> 10)  [90, frozen]
        170 parameters, 80 trainable
    """)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.blocks.append(Block(4)),
        lambda m: setattr(m, "head", nn.Linear(4, 3)),
        lambda m: setattr(m.blocks[0].drop, "p", 0.5),
        lambda m: m.head.requires_grad_(False),
        lambda m: m.half(),
        lambda m: setattr(m.blocks[1].fc, "weight", m.blocks[0].fc.weight),
        lambda m: setattr(m, "extra", nn.ReLU()),
        lambda m: delattr(m.blocks[0], "bn"),
    ],
)
def test_the_outline_sees_structural_changes(change):
    model = Net()
    before = outline(model)
    change(model)
    assert outline(model) != before


def test_the_outline_does_not_see_training_or_wrappers():
    assert outline(nn.DataParallel(forward_backward(Net()))) == outline(Net())


@pytest.mark.slow
def test_a_module_tree_is_described_in_another_process_with_another_hash_seed(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent("""
        import torch
        from torch import nn
        from weightslab.engine.identity.architecture import describe_model

        KINDS = {"alpha", "beta", "gamma"}

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                self.kinds = {"x", "y", "z"}
            def forward(self, x):
                return self.fc(x) * len(self.kinds | KINDS)

        print(describe_model(Net()).digest)
        """)
    )
    seen = set()
    for seed, options in (("0", []), ("4242", ["-OO"])):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, *options, str(script)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def test_only_code_without_source_is_weak():
    namespace = {"nn": nn, "__name__": "made"}
    body = "class Made(nn.Module):\n    def forward(self, x): return x * 41{}\n"
    digests = set()
    for tail in ("", " * 2"):
        exec(body.format(tail), namespace)
        found = describe_model(namespace["Made"]())
        assert found.weak == ("Made.forward",)
        digests.add(found.digest)
    assert len(digests) == 2
