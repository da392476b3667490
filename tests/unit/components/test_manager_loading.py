"""Loading: bit for bit what was saved, the newest valid one, and what the caller is told."""

from datetime import datetime

import pytest
import torch
from support.training import CONFIG, bits, flip, make, state_of, train

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    FormatError,
    IntegrityError,
    ReadOnlyStoreError,
    StateMismatchError,
)


@pytest.fixture
def saved(run):
    """Three checkpoints, and the bits of model and optimizer at each."""
    run.at = {}
    for step in (1, 2, 3):
        train(run.model, run.optimizer, seed=step)
        run.save(step, metadata={"epoch": step}, metrics={"loss": {1: 0.5, 2: 0.1, 3: 0.3}[step]})
        run.at[step] = state_of(run.model, run.optimizer)
    return run


def test_latest_restores_model_and_optimizer_bit_for_bit(saved):
    model, optimizer = make(seed=5)
    found = saved.manager.load_latest_checkpoint(model, optimizer=optimizer)
    assert found["step"] == 3
    assert state_of(model, optimizer) == saved.at[3]


def test_training_resumed_in_another_manager_equals_uninterrupted_training(saved):
    model, optimizer = make(seed=5)
    with CheckpointManagerV2(saved.manager.root.path) as other:
        update = other.update_experiment_hash(model, CONFIG, range(100))
        assert tuple(update) == (saved.exp_hash, False)
        other.load_latest_checkpoint(model, optimizer=optimizer)
    train(model, optimizer, steps=3, seed=11)
    train(saved.model, saved.optimizer, steps=3, seed=11)
    assert state_of(model, optimizer) == state_of(saved.model, saved.optimizer)


def test_result_tells_step_time_metadata_metrics_hash_and_path(saved):
    found = saved.manager.load_latest_checkpoint(saved.model, optimizer=saved.optimizer)
    moment = datetime.fromisoformat(found.pop("timestamp"))
    assert found.pop("report").is_complete
    assert moment.utcoffset().total_seconds() == 0
    assert found == {
        "step": 3,
        "revision": 1,
        "epoch": None,
        "samples_seen": None,
        "metadata": {"epoch": 3},
        "metrics": {"loss": 0.3},
        "exp_hash": saved.exp_hash,
        "path": saved.weights(3),
        "skipped": [],
    }


def test_metadata_comes_back_with_its_types(saved):
    metadata = {"pair": (1, 2.5), 3: [None, True], "raw": b"\x00\xff", "inf": float("inf")}
    saved.save(4, metadata=metadata)
    assert saved.manager.load_checkpoint(4)["metadata"] == metadata


def test_step_is_loaded_from_an_older_checkpoint(saved):
    model, optimizer = make(seed=5)
    assert saved.manager.load_checkpoint(2, model=model, optimizer=optimizer)["step"] == 2
    assert state_of(model, optimizer) == saved.at[2]


def test_revision_can_be_asked_for_and_the_highest_answers(saved):
    train(saved.model, saved.optimizer)
    saved.save(2)
    model = make(seed=5)[0]
    saved.manager.load_checkpoint(2, model=model, load_optimizer=False, revision=1)
    assert bits(model.state_dict()) == saved.at[2][0]
    assert saved.manager.load_checkpoint(2, model=model, load_optimizer=False)["revision"] == 2
    assert bits(model.state_dict()) == bits(saved.model.state_dict())


def test_best_checkpoint_of_the_root_can_be_loaded(saved):
    best = saved.manager.root.best("loss")
    assert best.name.step == 2
    assert saved.manager.load_checkpoint(best.name.step, best.name.exp_hash)["step"] == 2


def test_latest_is_the_one_committed_last_not_the_highest_step(saved):
    saved.manager.load_checkpoint(1, optimizer=saved.optimizer)
    train(saved.model, saved.optimizer, seed=20)
    saved.save(2)
    assert saved.manager.load_latest_checkpoint(optimizer=saved.optimizer)["step"] == 2


def test_hash_may_be_a_prefix(saved):
    model = make(seed=5)[0]
    with CheckpointManagerV2(saved.manager.root.path, read_only=True) as other:
        found = other.load_checkpoint(1, saved.exp_hash[:4], model, load_optimizer=False)
        assert found["exp_hash"] == saved.exp_hash
        assert (
            other.load_latest_checkpoint(
                model, exp_hash=saved.exp_hash[:6].upper(), load_optimizer=False
            )["step"]
            == 3
        )


def test_without_a_current_hash_the_newest_of_the_root_is_loaded(saved):
    saved.manager.update_experiment_hash(config={"lr": 2.0})
    saved.manager.save_model_checkpoint(saved.model, step=1, save_optimizer=False)
    with CheckpointManagerV2(saved.manager.root.path) as other:
        found = other.load_latest_checkpoint(make()[0], load_optimizer=False)
        assert found["exp_hash"] == saved.manager.current_hash
        assert other.current_hash is None


def test_empty_root_has_no_latest(manager):
    assert manager.load_latest_checkpoint(make()[0]) is None


def test_experiment_without_checkpoints_has_no_latest_and_names_the_nearest(saved, caplog):
    new = saved.manager.update_experiment_hash(config=CONFIG | {"lr": 0.5}).exp_hash
    assert saved.manager.load_latest_checkpoint(saved.model) is None
    assert f"experiment {new} has no checkpoints yet. Nearest: {saved.exp_hash}" in caplog.text
    assert "lr: 0.001 -> 0.5" in caplog.text
    assert "newest step 3" in caplog.text
    assert f"load_latest_checkpoint(exp_hash='{saved.exp_hash}')" in caplog.text
    assert "config_exclude" in caplog.text


def test_load_leaves_the_current_experiment_and_sets_the_parent(saved):
    new = saved.manager.update_experiment_hash(config=CONFIG | {"lr": 0.5}).exp_hash
    saved.manager.load_latest_checkpoint(
        saved.model, exp_hash=saved.exp_hash, optimizer=saved.optimizer
    )
    assert saved.manager.current_hash == new
    saved.save(4)
    parent = saved.manager.root.latest(new).parent
    assert (parent.exp_hash, parent.step) == (saved.exp_hash, 3)


def test_load_optimizer_false_leaves_the_optimizer_and_its_bytes_alone(saved):
    flip(saved.weights(3, ".training.safetensors"))
    model, optimizer = make(seed=5)
    before = bits(optimizer.state_dict())
    saved.manager.load_checkpoint(3, model=model, optimizer=optimizer, load_optimizer=False)
    assert bits(optimizer.state_dict()) == before
    assert bits(model.state_dict()) == saved.at[3][0]


def test_state_without_an_optimizer_is_a_warning(saved, caplog):
    saved.manager.load_checkpoint(3, model=make(seed=5)[0])
    assert "no optimizer was passed or registered" in caplog.text
    assert "load_optimizer=False silences this" in caplog.text


# ---------------------------------------------------------------- damage
def rewrite(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


HARMS = {
    "last bit": flip,
    "first bit": lambda path: flip(path, 0),
    "bit in the header": lambda path: flip(path, 40, 3),
    "cut": rewrite(lambda data: data[:-1]),
    "halved": rewrite(lambda data: data[: len(data) // 2]),
    "empty": rewrite(lambda data: b""),
    "appended": rewrite(lambda data: data + b"\n"),
    "zeroed": rewrite(lambda data: data[:16] + bytes(len(data) - 16)),
    "other file": rewrite(lambda data: b"\x89PNG" * 100),
}


@pytest.mark.parametrize("ending", [".safetensors", ".training.safetensors", ".json"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_damaged_newest_is_an_error_by_step_and_skipped_by_latest(saved, caplog, ending, harm):
    harm(saved.weights(3, ending))
    model, optimizer = make(seed=5)
    before = state_of(model, optimizer)
    with pytest.raises((IntegrityError, FormatError), match=f"{saved.exp_hash}_step_000003"):
        saved.manager.load_checkpoint(3, model=model, optimizer=optimizer)
    assert state_of(model, optimizer) == before
    found = saved.manager.load_latest_checkpoint(model, optimizer=optimizer)
    assert state_of(model, optimizer) == saved.at[2]
    assert [(s["step"], s["name"]) for s in found["skipped"]] == [
        (3, f"{saved.exp_hash}_step_000003")
    ]
    assert f"skipping the damaged checkpoint {saved.exp_hash}_step_000003" in caplog.text


@pytest.mark.parametrize("ending", [".safetensors", ".training.safetensors"])
def test_missing_file_is_named_and_skipped(saved, ending):
    saved.weights(3, ending).unlink()
    with pytest.raises(IntegrityError, match=rf"{saved.exp_hash}_step_000003{ending}"):
        saved.manager.load_checkpoint(3, optimizer=saved.optimizer)
    assert saved.manager.load_latest_checkpoint(optimizer=saved.optimizer)["step"] == 2


def test_exchanged_files_are_both_passed_over(saved):
    one, two = saved.weights(3), saved.weights(2)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    found = saved.manager.load_latest_checkpoint(optimizer=saved.optimizer)
    assert (found["step"], [s["step"] for s in found["skipped"]]) == (1, [3, 2])


def test_quarantined_newest_is_no_longer_skipped_and_its_number_is_free(saved):
    flip(saved.weights(3))
    root = saved.manager.root
    (finding,) = root.verify(saved.exp_hash, step=3)
    assert (finding.step, finding.is_damage) == (3, True)
    (folder,) = root.quarantine(saved.exp_hash)
    assert folder == root.path / "checkpoints" / ".quarantine" / f"{saved.exp_hash}_step_000003"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{saved.exp_hash}_step_000003.json",
        f"{saved.exp_hash}_step_000003.safetensors",
        f"{saved.exp_hash}_step_000003.training.safetensors",
        "why.json",
    ]
    found = saved.manager.load_latest_checkpoint(optimizer=saved.optimizer)
    assert (found["step"], found["skipped"]) == (2, [])
    assert root.verify() == []
    saved.save(3)
    assert root.get_checkpoint(saved.exp_hash, 3).name.revision == 1
    assert root.quarantine(saved.exp_hash) == []
    assert [e["event"] for e in root.journal.read()].count("checkpoint_quarantined") == 1


def test_whole_checkpoint_is_set_aside_only_by_force(saved):
    root = saved.manager.root
    with pytest.raises(CheckpointError, match=r"every byte of .* is as it was written"):
        root.quarantine(saved.exp_hash, step=2)
    with pytest.raises(ValueError, match="needs step"):
        root.quarantine(saved.exp_hash, force=True)
    assert len(root.checkpoints(saved.exp_hash)) == 3
    root.quarantine(saved.exp_hash, step=2, force=True)
    assert [e.name.step for e in root.checkpoints(saved.exp_hash)] == [1, 3]


def test_read_only_root_sets_nothing_aside(saved):
    flip(saved.weights(3))
    with (
        CheckpointManagerV2(saved.manager.root.path, read_only=True) as reader,
        pytest.raises(ReadOnlyStoreError, match="cannot set a checkpoint aside"),
    ):
        reader.root.quarantine(saved.exp_hash)


# ---------------------------------------------------------------- options
def test_size_alone_loads_what_full_verification_refuses(saved):
    flip(saved.weights(3))
    model = make(seed=5)[0]
    found = saved.manager.load_latest_checkpoint(model, load_optimizer=False, verify="size")
    assert (found["step"], found["skipped"], found["report"].verify) == (3, [], "size")
    with pytest.raises(ValueError, match="verify is 'full' or 'size'"):
        saved.manager.load_checkpoint(3, model=model, verify="quick")


def test_what_fits_is_loaded_into_a_changed_model(saved):
    model = make(seed=5)[0]
    model[3] = torch.nn.Linear(5, 4)
    report = saved.manager.load_checkpoint(3, model=model, load_optimizer=False, strict=False)[
        "report"
    ]
    assert set(report.shape_changes) == {"3.weight", "3.bias"}
    assert bits(model[0].weight) == saved.at[3][0]["0.weight"]


def test_another_dtype_is_loaded_on_request(saved):
    model = make(seed=5)[0].half()
    report = saved.manager.load_latest_checkpoint(model, load_optimizer=False, cast=True)["report"]
    assert report.casts["0.weight"] == "float32 -> float16"


def test_tensors_are_read_without_a_model(saved):
    found = saved.manager.root.tensors(saved.exp_hash[:6], 3, "0.*")
    assert {name: bits(tensor) for name, tensor in found.items()} == {
        name: saved.at[3][0][name] for name in ("0.bias", "0.weight")
    }
    (half,) = saved.manager.root.tensors(
        saved.exp_hash, 3, ("3.bias",), dtype=torch.float16
    ).values()
    assert half.dtype == torch.float16


def test_all_damaged_is_an_error_not_a_fresh_start(saved):
    for step in (1, 2, 3):
        flip(saved.weights(step))
    before = state_of(saved.model, saved.optimizer)
    with pytest.raises(IntegrityError, match="all 3 checkpoints are damaged"):
        saved.manager.load_latest_checkpoint(optimizer=saved.optimizer)
    assert state_of(saved.model, saved.optimizer) == before


def test_damaged_highest_revision_names_the_others(saved):
    train(saved.model, saved.optimizer)
    saved.save(3)
    flip(saved.weights(3, ".r2.safetensors"))
    with pytest.raises(IntegrityError, match=r"other revisions of step 3: \[1\]"):
        saved.manager.load_checkpoint(3, optimizer=saved.optimizer)


def test_checkpoint_deleted_between_listing_and_reading_is_passed_over(saved, monkeypatch):
    from weightslab.components import choosing

    entries = choosing.candidates(saved.manager.root, saved.exp_hash, None)
    monkeypatch.setattr(choosing, "candidates", lambda *_: entries)
    saved.manager.root.delete(saved.exp_hash, step=3)
    assert saved.manager.load_latest_checkpoint(optimizer=saved.optimizer)["step"] == 2


def test_nearest_steps_are_named(saved):
    with pytest.raises(
        CheckpointNotFoundError, match=r"no checkpoint at step 40 .*nearest: 1, 2, 3"
    ):
        saved.manager.load_checkpoint(40, model=saved.model)


# ---------------------------------------------------------------- what does not fit
def refused(saved, model, optimizer, **more):
    before = state_of(model, optimizer)
    with pytest.raises(StateMismatchError) as caught:
        saved.manager.load_checkpoint(3, model=model, optimizer=optimizer, **more)
    assert state_of(model, optimizer) == before
    return caught.value


def test_other_shapes_are_named(saved):
    error = refused(saved, *make(hidden=6))
    assert error.shape_changes["0.weight"] == "float32 [5, 3] -> float32 [6, 3]"
    assert "0.weight (float32 [5, 3] -> float32 [6, 3])" in str(error)
    assert "nothing was changed" in str(error)


def test_missing_and_unexpected_entries_are_named(saved):
    model, optimizer = make()
    model[3] = torch.nn.Bilinear(5, 5, 2, bias=False)
    model.append(torch.nn.Linear(2, 2, bias=False))
    error = refused(saved, model, optimizer)
    assert error.missing == ("4.weight",)
    assert error.unexpected == ("3.bias",)
    assert "the checkpoint lacks 4.weight" in str(error)
    assert "the model lacks 3.bias" in str(error)


def test_other_dtype_does_not_fit(saved):
    model, optimizer = make()
    model[0].double()
    assert refused(saved, model, optimizer).shape_changes["0.bias"] == "float32 [5] -> float64 [5]"


def test_optimizer_of_another_class_does_not_fit(saved):
    model, _ = make(seed=5)
    error = refused(saved, model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "torch.optim.adamw.AdamW, not of torch.optim.sgd.SGD" in str(error)


def test_optimizer_with_other_groups_does_not_fit(saved):
    model, _ = make(seed=5)
    groups = [{"params": model[0].parameters()}, {"params": model[3].parameters()}]
    assert "1 parameter groups of [6] parameters, the optimizer 2 of [2, 2]" in str(
        refused(saved, model, torch.optim.AdamW(groups))
    )


def test_optimizer_with_its_parameters_in_another_order_does_not_fit(saved):
    model, _ = make(seed=5)
    error = refused(saved, model, torch.optim.AdamW(reversed(list(model.parameters()))))
    assert "the optimizer has 3.bias where the checkpoint has 0.weight" in str(error)


def test_optimizer_passed_while_none_was_saved_names_the_way_out(run):
    run.save(3, save_optimizer=False)
    error = refused(run, *make(seed=5))
    assert "holds no optimizer state" in str(error)
    assert "load_optimizer=False" in str(error)


def test_dict_of_models_against_a_single_one_does_not_fit(saved):
    with pytest.raises(StateMismatchError, match=r"holds model, not model\.a"):
        saved.manager.load_checkpoint(3, model={"a": make()[0]}, load_optimizer=False)


def test_other_optimizer_names_do_not_fit(saved):
    model, optimizer = make(seed=5)
    with pytest.raises(
        StateMismatchError, match="holds the optimizers optimizer, not a, b"
    ) as error:
        saved.manager.load_checkpoint(3, model=model, optimizer={"a": optimizer, "b": optimizer})
    assert error.value.missing == ("a", "b")


def test_model_on_the_meta_device_is_refused(saved):
    with torch.device("meta"):
        model = make()[0]
    with pytest.raises(StateMismatchError, match=r"meta device.*initialise it first"):
        saved.manager.load_checkpoint(3, model=model, load_optimizer=False)


def test_lazy_model_is_refused_with_a_remedy(saved):
    model = torch.nn.Sequential(torch.nn.LazyLinear(5), *make()[0][1:])
    with pytest.raises(StateMismatchError, match=r"not initialised.*forward"):
        saved.manager.load_checkpoint(3, model=model, load_optimizer=False)
