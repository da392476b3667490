"""Options of a load: what is verified, what may differ, and what the report says."""

from datetime import datetime, timezone

import pytest
import torch
from support.training import bits, make, state_of, train

from weightslab.engine.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
    StateMismatchError,
    TruncatedError,
)
from weightslab.engine.loading.options import LoadOptions
from weightslab.engine.loading.restoring import restore
from weightslab.engine.loading.selecting import load_tensors
from weightslab.engine.loading.target import RestoreTarget
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.commit import commit_checkpoint
from weightslab.engine.saving.drafting import CheckpointFacts, make_draft
from weightslab.engine.storage.memory import MemoryStore

HASH = "0123456789abcdef"
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
LOOSE = LoadOptions(strict=False)


class Counting(MemoryStore):
    """A store that remembers which files were mapped."""

    def __init__(self):
        super().__init__()
        self.mapped = []

    def map(self, key):
        self.mapped.append(key.rpartition("/")[2])
        return super().map(key)


def commit(store, models, optimizers):
    facts = CheckpointFacts(
        exp_hash=HASH,
        experiment_digest="wl1:sha256:" + HASH * 4,
        step=4,
        metadata=None,
        metrics={},
    )
    draft = make_draft(models, optimizers, facts)
    return commit_checkpoint(store, ScanCatalog(store), draft, clock=lambda: NOW)[0]


@pytest.fixture
def saved():
    """A counting store, the manifest of a trained model with AdamW, and the live objects."""
    model, optimizer = make()
    train(model, optimizer)
    store = Counting()
    manifest = commit(store, {"model": model}, {"adam": optimizer})
    store.mapped.clear()
    return store, manifest, model, optimizer


def load(saved, model, optimizer=None, options=LOOSE, **more):
    store, manifest = saved[:2]
    optimizers = None if optimizer is None else {"adam": optimizer}
    more = {"load_optimizer": optimizer is not None, "given": True} | more
    target = RestoreTarget(models={"model": model}, optimizers=optimizers, **more)
    return restore(store, manifest, target, options)


def replace_file(saved, part, change):
    store, manifest = saved[:2]
    (file,) = (f for f in manifest.files if f.part == part)
    key = manifest.name.file_key(file.name)
    store.put(key, [change(bytes(store.map(key)))])
    store.mapped.clear()


# ---------------------------------------------------------------- verify
def test_weights_alone_never_touch_the_optimizer_file(saved):
    model, _ = make(seed=3)
    load(saved, model, options=LoadOptions())
    assert saved[0].mapped == [f"{HASH}_step_000004.safetensors"]
    assert state_of(model) == state_of(saved[2])


def test_size_alone_does_not_see_a_flipped_bit_and_full_does(saved):
    replace_file(saved, "model", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    model, _ = make(seed=3)
    with pytest.raises(DigestMismatchError):
        load(saved, model, options=LoadOptions())
    assert load(saved, model, options=LoadOptions(verify="size")).verify == "size"
    assert state_of(model) != state_of(saved[2])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[:-1], TruncatedError),
        (lambda data: data + b"\0", TruncatedError),
        (lambda data: data[:20] + b"#" + data[21:], DigestMismatchError),
    ],
    ids=["cut", "appended", "header"],
)
@pytest.mark.parametrize("part", ["model", "training"])
def test_size_sees_cut_appended_and_another_header(saved, part, change, error):
    replace_file(saved, part, change)
    model, optimizer = make(seed=3)
    before = state_of(model, optimizer)
    with pytest.raises(error):
        load(saved, model, optimizer, options=LoadOptions(verify="size"))
    assert state_of(model, optimizer) == before


def test_unknown_depth_of_verification_is_refused():
    with pytest.raises(ValueError, match="verify is 'full' or 'size', not 'none'"):
        LoadOptions(verify="none")


# ---------------------------------------------------------------- strict
def test_strict_load_reports_everything_as_loaded(saved):
    model, optimizer = make(seed=3)
    report = load(saved, model, optimizer, options=LoadOptions())
    assert report.is_complete
    assert set(report.loaded) == set(model.state_dict())
    assert (report.optimizers, report.optimizers_left_out) == (("adam",), {})


def test_what_fits_is_loaded_and_the_rest_is_named(saved):
    model, _ = make(seed=3, hidden=5)
    model[3] = torch.nn.Linear(5, 3)  # another number of classes
    model.append(torch.nn.Linear(3, 1))
    head = bits(dict(model[3].state_dict()))
    report = load(saved, model)
    assert set(report.shape_changes) == {"3.weight", "3.bias"}
    assert report.shape_changes["3.weight"] == "float32 [2, 5] -> float32 [3, 5]"
    assert report.missing == ("4.weight", "4.bias")
    assert report.unexpected == ()
    assert not report.is_complete
    assert "0.weight" in report.loaded
    assert bits(dict(model[3].state_dict())) == head
    assert torch.equal(model[0].weight, saved[2][0].weight)
    assert "do not fit: 3.weight (float32 [2, 5] -> float32 [3, 5])" in str(report)


def test_entries_without_a_place_are_unexpected(saved):
    model = torch.nn.Sequential(torch.nn.Linear(3, 5))
    report = load(saved, model)
    assert report.loaded == ("0.weight", "0.bias")
    assert set(report.unexpected) == set(saved[2].state_dict()) - {"0.weight", "0.bias"}


def test_strict_load_of_another_model_changes_nothing(saved):
    model = torch.nn.Sequential(torch.nn.Linear(3, 5))
    before = state_of(model)
    with pytest.raises(StateMismatchError):
        load(saved, model, options=LoadOptions())
    assert state_of(model) == before


def test_optimizer_that_does_not_fit_is_left_alone_and_named(saved, caplog):
    model, _ = make(seed=3)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    report = load(saved, model, sgd)
    assert report.optimizers == ()
    assert "holds the state of torch.optim.adamw.AdamW" in report.optimizers_left_out["adam"]
    assert "stays as it is" in caplog.text
    assert sgd.param_groups[0]["lr"] == 1.0
    assert state_of(model) == state_of(saved[2])


def test_optimizer_state_that_was_not_asked_for_is_named(saved):
    report = load(saved, make(seed=3)[0])
    assert report.optimizers_left_out == {"adam": "load_optimizer=False"}


def test_one_of_two_models_is_loaded_and_the_other_named():
    store = MemoryStore()
    one, two = make(seed=1)[0], make(seed=2)[0]
    manifest = commit(store, {"model.one": one, "model.two": two}, None)
    fresh, third = make(seed=3)[0], torch.nn.Linear(1, 1)
    models = {"model.one": fresh, "model.three": third}
    target = RestoreTarget(models=models, load_optimizer=False)
    with pytest.raises(StateMismatchError):
        restore(store, manifest, target)
    report = restore(store, manifest, target, LOOSE)
    assert state_of(fresh) == state_of(one)
    assert report.missing == ("three/weight", "three/bias")
    assert set(report.unexpected) == {f"two/{key}" for key in two.state_dict()}
    assert "one/0.weight" in report.loaded


def test_checkpoint_of_other_models_alone_is_refused_even_so(saved):
    store, manifest = saved[:2]
    target = RestoreTarget(models={"model.gen": make()[0]}, load_optimizer=False)
    with pytest.raises(StateMismatchError, match=r"holds model, not model\.gen"):
        restore(store, manifest, target, LOOSE)


def test_second_of_two_values_for_a_tied_tensor_is_left_out():
    class Two(torch.nn.Module):
        def __init__(self, *, tied):
            super().__init__()
            self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            if tied:
                self.b.weight = self.a.weight

    store, whole = MemoryStore(), Two(tied=False)
    manifest = commit(store, {"model": whole}, None)
    model = Two(tied=True)
    target = RestoreTarget(models={"model": model}, load_optimizer=False)
    report = restore(store, manifest, target, LOOSE)
    assert report.shape_changes == {"b.weight": "tied to a.weight"}
    assert torch.equal(model.b.weight, whole.a.weight)


# ---------------------------------------------------------------- cast
def test_another_dtype_is_a_mismatch_and_cast_converts_it(saved):
    model = make(seed=3)[0].to(torch.bfloat16)
    with pytest.raises(StateMismatchError, match="float32"):
        load(saved, model, options=LoadOptions())
    report = load(saved, model, options=LoadOptions(cast=True))
    assert report.casts["0.weight"] == "float32 -> bfloat16"
    assert "1.num_batches_tracked" not in report.casts
    assert torch.equal(model[0].weight, saved[2][0].weight.to(torch.bfloat16))


def test_cast_never_drops_a_fraction():
    store = MemoryStore()
    source = torch.nn.Module()
    source.register_buffer("count", torch.tensor([1.5]))
    manifest = commit(store, {"model": source}, None)
    live = torch.nn.Module()
    live.register_buffer("count", torch.tensor([7]))
    target = RestoreTarget(models={"model": live}, load_optimizer=False)
    with pytest.raises(StateMismatchError, match=r"float32 \[1\] -> int64 \[1\]"):
        restore(store, manifest, target, LoadOptions(cast=True))
    assert live.count.tolist() == [7]


def test_cast_for_a_model_that_loads_its_own_way(saved):
    class Own(torch.nn.Sequential):
        def _load_from_state_dict(self, state, prefix, *more):
            kinds.update(value.dtype for value in state.values() if value.is_floating_point())
            super()._load_from_state_dict(state, prefix, *more)

    kinds = set()
    model = Own(*make(seed=3)[0]).to(torch.float64)
    load(saved, model, options=LoadOptions(cast=True))
    assert kinds == {torch.float64}
    assert torch.equal(model[0].weight, saved[2][0].weight.double())


# ---------------------------------------------------------------- tensors without a model
def test_glob_takes_what_fits_in_the_order_of_names(saved):
    store, manifest, model, _ = saved
    found = load_tensors(store, manifest, "*.weight")
    assert list(found) == ["0.weight", "1.weight", "3.weight"]
    assert all(torch.equal(found[name], model.state_dict()[name]) for name in found)
    assert store.mapped == [f"{HASH}_step_000004.safetensors"]


def test_several_patterns_and_tensors_of_the_training_state(saved):
    store, manifest, model, optimizer = saved
    found = load_tensors(store, manifest, ("0.bias", "training/*/0/exp_avg"))
    assert list(found) == ["0.bias", "training/optimizer/adam/state/state/0/exp_avg"]
    moment = optimizer.state[model[0].weight]["exp_avg"]
    assert torch.equal(found["training/optimizer/adam/state/state/0/exp_avg"], moment)


def test_only_the_chosen_bytes_are_read(saved):
    store, manifest = saved[:2]
    record = manifest.tensors_of_part("model")["0.weight"]
    at = record.offset
    replace_file(saved, "model", lambda data: data[:at] + b"\xff" + data[at + 1 :])
    assert list(load_tensors(store, manifest, "3.*")) == ["3.bias", "3.weight"]
    with pytest.raises(DigestMismatchError, match=r"0\.weight"):
        load_tensors(store, manifest, "0.*")


def test_returned_tensors_are_the_callers_own(saved):
    store, manifest = saved[:2]
    load_tensors(store, manifest, "0.weight")["0.weight"].zero_()
    assert load_tensors(store, manifest, "0.weight")["0.weight"].abs().sum() > 0


def test_tied_names_share_one_tensor():
    store = MemoryStore()
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    manifest = commit(store, {"model": model}, None)
    found = load_tensors(store, manifest, "*.weight")
    assert list(found) == ["a.weight", "b.weight"]
    assert found["a.weight"] is found["b.weight"]


def test_dtype_converts_floats_alone(saved):
    store, manifest = saved[:2]
    found = load_tensors(store, manifest, "1.*", dtype=torch.float64)
    assert found["1.weight"].dtype == torch.float64
    assert found["1.num_batches_tracked"].dtype == torch.int64


def test_tensors_go_to_the_device_that_is_asked_for(saved):
    store, manifest = saved[:2]
    assert load_tensors(store, manifest, "0.bias", device="meta")["0.bias"].device.type == "meta"


def test_pattern_that_fits_nothing_names_what_is_near(saved):
    store, manifest = saved[:2]
    with pytest.raises(ObjectNotFoundError, match=r"fits '0\.weigth'; it holds .*0\.weight"):
        load_tensors(store, manifest, "0.weigth")


def test_several_models_have_their_names_in_front():
    store = MemoryStore()
    manifest = commit(store, {"model.g": torch.nn.Linear(1, 1), "model.d": make()[0]}, None)
    assert list(load_tensors(store, manifest, "g/*")) == ["g/bias", "g/weight"]
