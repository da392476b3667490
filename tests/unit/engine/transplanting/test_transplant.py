"""`root.transplant`: what fits is copied, the rest is told; checked before anything changes."""

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointNotFoundError, IntegrityError, StateMismatchError
from weightslab.engine.root import CheckpointRoot


def mlp(*widths, seed=0):
    torch.manual_seed(seed)
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def trained(model, width, make=torch.optim.Adam):
    """Return an optimizer with state in it."""
    optimizer = make(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.ones(3, width)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root with one checkpoint of a model 4 -> 8 -> 2 and its Adam; and what was saved."""
    path = tmp_path_factory.mktemp("donor") / "root"
    model = mlp(4, 8, 2)
    optimizer = trained(model, 4)
    with CheckpointManagerV2(path) as manager:
        exp_hash = manager.update_experiment_hash(model, {"lr": 0.1}).exp_hash
        manager.save_model_checkpoint(model, step=100, optimizer=optimizer)
    root = CheckpointRoot(path, read_only=True)
    return root, f"{exp_hash}@100", model.state_dict(), optimizer.state_dict()["state"]


def moved(report):
    return {move.target: (move.source, move.by, move.change) for move in report.copied}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_same_architecture_is_copied_whole_with_the_state_of_its_optimizer(made):
    root, reference, saved, state = made
    model = mlp(4, 8, 2, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=7.0)
    report = root.transplant(reference[:6] + "@100", model, optimizer=optimizer)
    assert report.is_complete
    assert_same(model.state_dict(), saved)
    found = optimizer.state_dict()
    for index, entry in state.items():
        assert_same(found["state"][index], entry)
    assert found["param_groups"][0]["lr"] == 7.0
    assert report.optimizers["optimizer"].moved == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_an_inserted_layer_is_fresh_and_what_it_pushed_on_is_found(made):
    root, reference, saved, state = made
    model = mlp(4, 8, 9, 8, 2, seed=1)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters())
    report = root.transplant(reference, model, optimizer=optimizer)
    assert moved(report) == {
        "0.weight": ("0.weight", "name", ""),
        "0.bias": ("0.bias", "name", ""),
        "6.weight": ("2.weight", "structure", ""),
        "6.bias": ("2.bias", "structure", ""),
    }
    assert list(report.fresh) == ["2.weight", "2.bias", "4.weight", "4.bias"]
    assert report.unused == ()
    assert torch.equal(model[6].weight, saved["2.weight"])
    assert torch.equal(model[2].weight, before["2.weight"])
    entry = optimizer.state[model[6].weight]
    assert_same(entry, state[2])
    assert model[2].weight not in optimizer.state


def test_grown_and_shrunk_layers_are_sliced_on_request_alone(made):
    root, reference, saved, state = made
    model = mlp(4, 10, 1, seed=1)
    before = copy.deepcopy(model.state_dict())
    report = root.transplant(reference, model)
    assert report.copied == report.sliced == ()
    assert report.fresh["0.weight"] == "does not fit: float32 [8, 4] -> float32 [10, 4]"
    assert_same(model.state_dict(), before)

    optimizer = torch.optim.Adam(model.parameters())
    report = root.transplant(reference, model, optimizer=optimizer, resize="slice")
    assert {m.target: m.change for m in report.sliced} == {
        "0.weight": "[8, 4] -> [10, 4]",
        "0.bias": "[8] -> [10]",
        "2.weight": "[2, 8] -> [1, 10]",
        "2.bias": "[2] -> [1]",
    }
    assert torch.equal(model[0].weight[:8], saved["0.weight"])
    assert torch.equal(model[0].weight[8:], before["0.weight"][8:])
    assert torch.equal(model[2].weight[:, :8], saved["2.weight"][:1])
    moments = optimizer.state[model[0].weight]
    assert torch.equal(moments["exp_avg"][:8], state[0]["exp_avg"])
    assert not moments["exp_avg"][8:].any()
    assert torch.equal(moments["step"], state[0]["step"])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()


def test_a_dry_run_says_the_same_and_changes_nothing(made):
    root, reference, _, _ = made
    model = mlp(4, 10, 2, seed=1)
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy(model.state_dict())
    options = {"optimizer": optimizer, "resize": "slice"}
    planned = root.transplant(reference, model, dry_run=True, **options)
    assert_same(model.state_dict(), before)
    assert optimizer.state_dict()["state"] == {}
    done = root.transplant(reference, model, **options)
    assert planned.to_dict() == done.to_dict() | {"dry_run": True}
    assert "would go into the model" in str(planned)


def test_another_dtype_is_converted_and_told(made):
    root, reference, saved, _ = made
    model = mlp(4, 8, 2, seed=1).to(torch.bfloat16)
    optimizer = torch.optim.Adam(model.parameters())
    report = root.transplant(reference, model, optimizer=optimizer)
    assert {move.change for move in report.copied} == {"float32 -> bfloat16"}
    assert torch.equal(model[0].weight, saved["0.weight"].to(torch.bfloat16))
    assert optimizer.state[model[0].weight]["exp_avg"].dtype == torch.bfloat16


def test_whole_numbers_never_take_fractions(made):
    root, reference, _, _ = made
    model = mlp(4, 8, 2)
    model[0].weight = nn.Parameter(torch.ones(8, 4, dtype=torch.int32), requires_grad=False)
    report = root.transplant(reference, model, resize="slice")
    assert report.fresh == {"0.weight": "does not fit: float32 [8, 4] -> int32 [8, 4]"}
    assert bool((model[0].weight == 1).all())


class Tied(nn.Module):
    def __init__(self, width, *, tied, name="head", norm=True):
        super().__init__()
        self.embed = nn.Embedding(5, width)
        if norm:
            self.norm = nn.BatchNorm1d(width)
        head = nn.Linear(width, 5, bias=False)
        if tied:
            head.weight = self.embed.weight
        self.add_module(name, head)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    path = tmp_path_factory.mktemp("tied") / "root"
    torch.manual_seed(0)
    model = Tied(3, tied=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.head(model.norm(model.embed(torch.arange(5)))).square().sum().backward()
    optimizer.step()
    with CheckpointManagerV2(path) as manager:
        exp_hash = manager.update_experiment_hash(model, {}).exp_hash
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    return CheckpointRoot(path, read_only=True), exp_hash, model, optimizer


def test_tied_weights_stay_tied_and_buffers_come_along(tied):
    root, reference, saved, donor = tied
    model = Tied(3, tied=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    report = root.transplant(reference, model, optimizer=optimizer)
    assert report.is_complete
    assert model.head.weight is model.embed.weight
    assert_same(model.state_dict(), saved.state_dict())
    buffer = optimizer.state[model.embed.weight]["momentum_buffer"]
    assert torch.equal(buffer, donor.state[saved.embed.weight]["momentum_buffer"])


def test_grown_tied_weights_are_sliced_as_one(tied):
    root, reference, saved, _ = tied
    model = Tied(4, tied=True)
    report = root.transplant(reference, model, resize="slice")
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight[:, :3], saved.embed.weight)
    assert {m.target for m in report.sliced} >= {"embed.weight", "head.weight", "norm.running_mean"}
    assert {m.target for m in report.copied} == {"norm.num_batches_tracked"}


def test_untied_weights_take_one_value_each(tied):
    root, reference, saved, _ = tied
    model = Tied(3, tied=False)
    assert root.transplant(reference, model).is_complete
    assert model.head.weight is not model.embed.weight
    assert torch.equal(model.head.weight, saved.embed.weight)


def test_two_saved_values_for_one_tied_weight_take_the_first(tmp_path):
    model = Tied(3, tied=False)
    with CheckpointManagerV2(tmp_path) as manager:
        manager.update_experiment_hash(model, {})
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        into = Tied(3, tied=True)
        report = manager.root.transplant("latest", into)
    assert torch.equal(into.head.weight, model.embed.weight)
    assert report.unused == ("head.weight",)


def test_what_is_damaged_or_does_not_pair_up_changes_nothing(made, tmp_path):
    root, reference, _, _ = made
    model = mlp(4, 8, 2, seed=1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(StateMismatchError, match=r"holds the state of torch\.optim\.adam\.Adam"):
        root.transplant(reference, model, optimizer=torch.optim.SGD(model.parameters(), lr=1))
    with pytest.raises(StateMismatchError, match=r"holds model, not model\.G"):
        root.transplant(reference, {"G": model})
    with pytest.raises(TypeError, match="a module or a dict of them, not list"):
        root.transplant(reference, [model])
    with pytest.raises(ValueError, match="resize is 'no' or 'slice', not 'grow'"):
        root.transplant(reference, model, resize="grow")
    with pytest.raises(CheckpointNotFoundError):
        root.transplant(reference.replace("@100", "@7"), model)
    assert_same(model.state_dict(), before)


def test_a_flipped_bit_is_found_before_anything_changes(tmp_path):
    donor, model = mlp(4, 8, 2), mlp(4, 9, 2, seed=1)
    before = copy.deepcopy(model.state_dict())
    with CheckpointManagerV2(tmp_path) as manager:
        manager.update_experiment_hash(donor, {})
        path = manager.save_model_checkpoint(donor, step=1, save_optimizer=False)
        with pytest.raises(StateMismatchError, match="holds the optimizers \\(none\\)"):
            manager.root.transplant("latest", model, optimizer=trained(mlp(4, 8, 2), 4))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(IntegrityError):
            manager.root.transplant("latest", model, resize="slice")
    assert_same(model.state_dict(), before)


def test_a_damaged_architecture_leaves_names_and_shapes(tmp_path):
    donor, model = mlp(4, 8, 2), mlp(4, 8, 9, 2, seed=1)
    with CheckpointManagerV2(tmp_path) as manager:
        exp_hash = manager.update_experiment_hash(donor, {}).exp_hash
        manager.save_model_checkpoint(donor, step=1, save_optimizer=False)
        folder = tmp_path / "checkpoints" / exp_hash / "model"
        (folder / f"{exp_hash}_architecture.json").write_text("{}")
        report = manager.root.transplant("latest", model)
    assert "names and shapes alone" in report.problems[0]
    assert len(report.copied) == 2


def test_models_of_a_dict_are_moved_by_name(tmp_path):
    models = {"G": mlp(4, 8, 2), "D": mlp(2, 8, 1)}
    optimizers = {"G": trained(models["G"], 4), "D": trained(models["D"], 2)}
    with CheckpointManagerV2(tmp_path) as manager:
        manager.update_experiment_hash(models, {})
        manager.save_model_checkpoint(models, step=1, optimizer=optimizers)
        new = {"G": mlp(4, 9, 2, seed=1), "D": mlp(2, 8, 1, seed=1)}
        fresh = {name: torch.optim.Adam(model.parameters()) for name, model in new.items()}
        report = manager.root.transplant("latest", new, optimizer=fresh, resize="slice")
        one = manager.root.transplant("latest", {"D": mlp(2, 8, 1)})
    assert_same(new["D"].state_dict(), models["D"].state_dict())
    assert {m.target for m in report.sliced} == {"G/0.weight", "G/0.bias", "G/2.weight"}
    assert len(report.optimizers["D"].moved) == 4
    assert [len(v) for v in (one.copied, one.fresh, one.unused)] == [4, 0, 0]


def test_wrapped_models_are_filled_inside(made):
    root, reference, saved, _ = made
    model = mlp(4, 8, 2, seed=1)
    report = root.transplant(reference, nn.DataParallel(model))
    assert report.is_complete
    assert_same(model.state_dict(), saved)


# ------------------------------------------------------------ where the weights come from
def test_the_checkpoint_becomes_the_parent_by_itself(tmp_path):
    donor = mlp(4, 8, 2)
    with CheckpointManagerV2(tmp_path) as manager:
        exp_hash = manager.update_experiment_hash(donor, {}).exp_hash
        manager.save_model_checkpoint(donor, step=5, save_optimizer=False)
        model = mlp(4, 8, 3, seed=1)
        manager.root.transplant(f"{exp_hash}@5", model, dry_run=True)
        manager.update_experiment_hash(model)
        manager.save_model_checkpoint(model, step=0, save_optimizer=False)
        assert manager.root.latest(manager.current_hash).parent.kind == "fresh"
        model = mlp(4, 8, 3, seed=2)
        manager.root.transplant(f"{exp_hash}@5", model)
        manager.update_experiment_hash(model)
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        parent = manager.root.latest(manager.current_hash).parent
    assert (parent.kind, parent.exp_hash, parent.step, parent.exact) == (
        "checkpoint",
        exp_hash,
        5,
        None,
    )


def test_a_model_that_keeps_weights_of_another_checkpoint_has_no_single_parent(tmp_path):
    donor, model = mlp(4, 8, 2), mlp(4, 8, 3, seed=1)
    with CheckpointManagerV2(tmp_path) as manager:
        first = manager.update_experiment_hash(donor, {}).exp_hash
        manager.save_model_checkpoint(donor, step=5, save_optimizer=False)
        second = manager.update_experiment_hash(model).exp_hash
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        manager.root.transplant(first, model)
        manager.save_model_checkpoint(model, step=2, save_optimizer=False)
        parent = manager.root.latest(second).parent
        assert (parent.kind, set(parent.via)) == ("unknown", {first, second})
        whole = mlp(4, 8, 2, seed=4)
        manager.update_experiment_hash(whole)
        manager.save_model_checkpoint(whole, step=6, save_optimizer=False)
        manager.root.transplant(f"{first}@5", whole)
        manager.save_model_checkpoint(whole, step=7, save_optimizer=False)
        parent = manager.root.latest(first).parent
        assert (parent.kind, parent.step) == ("checkpoint", 5)


def test_the_report_is_plain_json_and_a_screen(made):
    root, reference, _, _ = made
    model = mlp(4, *[8] * 40, 2, seed=1)
    optimizer = torch.optim.Adam(model.parameters())
    report = root.transplant(reference, model, optimizer=optimizer, dry_run=True)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    lines = str(report).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


widths = st.lists(st.integers(1, 6), min_size=1, max_size=3)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(old=widths, new=widths, resize=st.booleans(), seed=st.integers(0, 99))
def test_every_tensor_is_copied_sliced_fresh_or_unused(roots, old, new, resize, seed):
    root, reference, saved = roots(tuple(old))
    model = mlp(3, *new, 2, seed=seed)
    before = copy.deepcopy(model.state_dict())
    report = root.transplant(reference, model, resize="slice" if resize else "no")
    after = model.state_dict()
    told = [*(m.target for m in (*report.copied, *report.sliced)), *report.fresh]
    assert sorted(told) == sorted(after)
    sources = [m.source for m in (*report.copied, *report.sliced)]
    assert sorted([*sources, *report.unused]) == sorted(saved)
    for move in report.copied:
        assert torch.equal(after[move.target], saved[move.source])
    for move in report.sliced:
        value, source = after[move.target], saved[move.source]
        corner = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, source.shape, strict=True))
        assert torch.equal(value[corner], source[corner])
        kept = before[move.target].clone()
        kept[corner] = source[corner]
        assert torch.equal(value, kept)
    for name in report.fresh:
        assert torch.equal(after[name], before[name])
    assert resize or not report.sliced


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Widths -> (root, reference, state) of a saved model; each is made once."""
    manager = CheckpointManagerV2(tmp_path_factory.mktemp("many") / "root")
    known = {}

    def get(widths):
        if widths not in known:
            model = mlp(3, *widths, 2)
            exp_hash = manager.update_experiment_hash(model, {}).exp_hash
            manager.save_model_checkpoint(model, step=1, save_optimizer=False)
            known[widths] = manager.root, exp_hash, model.state_dict()
        return known[widths]

    yield get
    manager.close()
