"""What forward may read besides numbers: functions, tensors, modules, hooks, generated code."""

import enum
import functools
import logging
import operator
import types
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.architecture import describe_model


def digest(model):
    return describe_model(model).digest


class Mode(enum.Enum):
    A = 1
    B = 2


class Holder(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.value = value

    def forward(self, x):
        return use(self.fc(x), self.value)


def use(x, value):
    return x if value is None else x * 1


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a


class Lazy:
    def __init__(self, k):
        self.k = k

    @functools.cached_property
    def doubled(self):
        return self.k * 2

    @property
    def plain(self):
        return self.k


@functools.cache
def cached(x):
    return x + 1


def scripted(body):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old models still hold them
        return torch.jit.script(body)


def relu(x):
    return x.relu()


def tanh(x):
    return x.tanh()


VALUES = [
    *[None, 0, 1, True, 1.0, 0.0, -0.0, "max", "avg", (1, 2), [2, 1], {1, 2}, {1: 2}, {"1": 2}],
    *[2**70, 2**70 + 1, 1j, 2j, range(3), range(4), slice(0, 2), b"x", float("nan"), float("inf")],
    *[Mode.A, Mode.B, torch.float16, torch.bfloat16, torch.device("cuda:1")],
    *[np.array([1.0, 2.0]), np.array([1.0, 3.0]), np.array([1, 2]), torch.tensor([1.0, 2.0])],
    *[torch.tensor([1.0, 3.0]), torch.tensor([1, 3]), torch.empty(0), torch.tensor([1 + 2j])],
    *[functional.relu, functional.gelu, torch.relu, len, functional.max_pool2d, torch.Tensor.add],
    *[functools.partial(functional.elu, alpha=1), functools.partial(functional.elu, alpha=2)],
    *[operator.methodcaller("relu"), operator.methodcaller("tanh"), operator.itemgetter(1)],
    *[Slots(1), Slots(2), Lazy(1), Lazy(2), Lazy, Slots, nn.Linear, cached],
    *[scripted(relu), scripted(tanh), [1].append, "ab".join, "ac".join],
    *[
        [nn.Dropout(0.1)],
        [nn.Dropout(0.2)],
        nn.Parameter(torch.ones(2)),
        types.SimpleNamespace(a=1),
    ],
    *[weakref.ref(Slots), torch.Generator(), torch.nn.Parameter(torch.ones(3))],
]


def test_every_kind_of_value_has_a_hash_of_its_own():
    seen = {}
    for value in VALUES:
        found = digest(Holder(value))
        assert found not in seen, f"{seen.get(found)!r} and {value!r} are the same"
        seen[found] = value
    assert [digest(Holder(value)) for value in VALUES] == list(seen)


# beta and deprecated kinds of tensors announce themselves when they are made
NOISY = pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.quantize_per_tensor")


@NOISY
def test_a_constant_of_a_layout_that_cannot_be_read_is_named():
    value = torch.eye(4).to_sparse_bsr((2, 2))
    with pytest.raises(IdentityError, match=r"value: a constant tensor of layout torch.sparse_bsr"):
        digest(Holder(value))


@NOISY
def test_sparse_and_quantized_constants_count_with_their_values():
    def quantized(scale):
        return torch.quantize_per_tensor(torch.ones(2), scale, 0, torch.qint8)

    values = [torch.eye(2), 2 * torch.eye(2)]
    values += [value.to_sparse() for value in values] + [value.to_sparse_csr() for value in values]
    values += [quantized(0.1), quantized(0.5)]
    assert len({digest(Holder(value)) for value in values}) == 8
    assert digest(Holder(quantized(0.1))) == digest(Holder(quantized(0.1)))


def test_a_constant_on_the_meta_device_makes_the_identity_weak():
    found = describe_model(Holder(torch.empty(2, device="meta")))
    assert found.weak == ("a constant float32 [2]: on the meta device, its values are not known",)


def test_an_object_that_refers_to_itself_is_named():
    value = types.SimpleNamespace()
    value.me = value
    with pytest.raises(IdentityError, match=r"value\.me: a container that holds itself"):
        digest(Holder(value))


def test_weights_in_a_plain_list_do_not_count():
    assert digest(Holder([nn.Linear(2, 2)])) == digest(Holder([nn.Linear(2, 2)]))
    assert digest(Holder([nn.Linear(2, 2)])) != digest(Holder([nn.Linear(2, 3)]))


def test_references_into_the_tree_are_paths():
    def referring():
        model = Holder(None)
        model.value = [model, model.fc, model.fc.weight]
        return model

    assert digest(referring()) == digest(referring())
    stored = describe_model(referring()).document["identity"]["models"][0][1]["modules"][0]
    assert stored["attributes"]["value"] == [
        {"$module": ""},
        {"$module": "fc"},
        {"$tensor": {"path": "fc.weight"}},
    ]


def double(module, inputs, output):
    return output * 2


def watch(module, inputs, output):
    logging.getLogger(__name__).debug("mean %s", output.mean())


def in_place(module, inputs, output):
    output.mul_(2)


class Factor:
    def __init__(self, k):
        self.k = k

    def __call__(self, module, inputs, output):
        return output * self.k


class Recorder:
    def __init__(self):
        self.seen = []

    def save(self, module, inputs, output):
        self.seen.append(output)


def hooked(hook, register="register_forward_hook"):
    model = nn.Linear(4, 4)
    getattr(model, register)(hook)
    return model


def test_hooks_that_change_something_count():
    found = [
        digest(model)
        for model in (
            nn.Linear(4, 4),
            hooked(double),
            hooked(in_place),
            hooked(Factor(2)),
            hooked(Factor(3)),
            hooked(functools.partial(lambda k, m, i, o: o * k, 2)),
            hooked(functools.partial(lambda k, m, i, o: o * k, 3)),
            hooked(lambda m, i: (i[0] * 2,), "register_forward_pre_hook"),
            hooked(lambda m, gi, go: tuple(g * 0.5 for g in gi), "register_full_backward_hook"),
        )
    ]
    assert len(set(found)) == len(found)


def test_a_hook_on_a_parameter_counts():
    model = nn.Linear(4, 4)
    model.weight.register_hook(lambda gradient: gradient * 0.5)
    assert digest(model) != digest(nn.Linear(4, 4))


def test_hooks_that_only_look_do_not_count():
    plain = digest(nn.Linear(4, 4))
    recorder = Recorder()
    assert digest(hooked(watch)) == plain
    assert digest(hooked(recorder.save)) == plain
    removed = nn.Linear(4, 4)
    removed.register_forward_hook(double).remove()
    assert digest(removed) == plain


def patched(self, x):
    return self.fc(x).relu()


def test_a_patched_forward_counts_also_on_library_layers():
    model = Holder(None)
    model.forward = types.MethodType(patched, model)
    child = Holder(None)
    child.fc.forward = types.MethodType(lambda self, x: x * 0, child.fc)
    assert len({digest(Holder(None)), digest(model), digest(child)}) == 3


class Triangle(nn.Module):
    def forward(self, weight):
        return weight.triu()


class Other(nn.Module):
    def forward(self, weight):
        return weight.tril()


def test_parametrizations_count_with_their_options_and_code():
    def custom(module):
        layer = nn.Linear(4, 4)
        parametrize.register_parametrization(layer, "weight", module)
        return layer

    found = [
        digest(model)
        for model in (
            nn.Linear(4, 4),
            parametrizations.weight_norm(nn.Linear(4, 4), dim=0),
            parametrizations.weight_norm(nn.Linear(4, 4), dim=1),
            parametrizations.spectral_norm(nn.Linear(4, 4)),
            parametrizations.spectral_norm(nn.Linear(4, 4), n_power_iterations=3),
            custom(Triangle()),
            custom(Other()),
        )
    ]
    assert len(set(found)) == len(found)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_generated_code_counts():
    def relu():
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    class Forward(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) * 2

    x = torch.ones(1, 4)
    traces = [torch.jit.trace(relu(), x), torch.jit.trace(Forward(relu()), x)]
    graphs = [torch.fx.symbolic_trace(relu()), torch.fx.symbolic_trace(Forward(relu()))]
    found = [digest(model) for model in (*traces, *graphs)]
    assert len(set(found)) == 4
    assert digest(torch.jit.trace(relu(), x)) == found[0]
    assert digest(torch.fx.symbolic_trace(relu())) == found[2]


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.calls = nn.Linear(4, 4), 0

    @torch.amp.autocast("cpu")
    def forward(self, x):
        return self.quiet(x)

    @torch.no_grad()
    def quiet(self, x):
        self.calls += 1
        return self.fast(x)

    @torch.compile(backend="eager")
    def fast(self, x):
        return self.fc(x)


def test_decorators_of_torch_are_seen_through():
    before = digest(Decorated())
    used = Decorated()
    used(torch.ones(1, 4))
    assert digest(used) == before
    document = describe_model(used).document
    assert "self.calls += 1" in document["sources"][""]["Decorated.quiet"]
    assert describe_model(used).weak == ()


def test_a_user_function_dressed_as_a_library_one_is_read():
    def dressed(factor):
        @functools.wraps(functional.relu)
        def relu(x):
            return x * factor

        return relu

    found = {
        digest(Holder(functional.relu)),
        digest(Holder(dressed(2))),
        digest(Holder(dressed(3))),
    }
    assert len(found) == 3


def test_functions_of_one_name_are_kept_apart():
    first = digest(Holder([lambda t: t * 2, lambda t: t * 3]))
    assert first != digest(Holder([lambda t: t * 5, lambda t: t * 3]))
    assert first == digest(Holder([lambda t: t * 2, lambda t: t * 3]))
