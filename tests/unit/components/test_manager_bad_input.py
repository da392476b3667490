"""Bad input: each gets an error that names the values and the remedy, and nothing is lost."""

import numpy as np
import pytest
import torch
from support.training import CONFIG, files_of, flip, make, state_of, train

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    IntegrityError,
    NotStorableError,
    ObjectNotFoundError,
    StateMismatchError,
    UnsupportedVersionError,
)
from weightslab.engine.jsonform import seal, unseal


@pytest.fixture
def unchanged(run):
    """Step 1 is committed; after the test every byte and the live objects are as before."""
    train(run.model, run.optimizer)
    run.save(1)
    files, state = files_of(run.manager.root.path), state_of(run.model, run.optimizer)
    yield run
    assert files_of(run.manager.root.path) == files
    assert state_of(run.model, run.optimizer) == state
    assert run.manager.load_checkpoint(1, model=run.model, optimizer=run.optimizer)["step"] == 1


# ---------------------------------------------------------------- names
def test_unknown_prefix_names_the_nearest(unchanged):
    wrong = ("0" if unchanged.exp_hash[0] != "0" else "1") + unchanged.exp_hash[1:]
    with pytest.raises(
        ExperimentNotFoundError, match=f"no experiment '{wrong}'; nearest: {unchanged.exp_hash}"
    ):
        unchanged.manager.load_checkpoint(1, wrong)


def test_ambiguous_prefix_names_those_it_fits(run):
    hashes = [run.exp_hash]
    while not any(h[0] == run.exp_hash[0] for h in hashes[1:]):
        hashes.append(run.manager.update_experiment_hash(config={"n": len(hashes)}).exp_hash)
    with pytest.raises(
        ExperimentNotFoundError, match=rf"beginning of 2 experiments: .*{run.exp_hash}.*more digits"
    ):
        run.manager.load_config(run.exp_hash[0])


@pytest.mark.parametrize("prefix", ["", "../..", "x/y", "g" * 16, "f" * 64, "\0", "."])
def test_text_that_is_no_prefix_is_an_unknown_experiment(unchanged, prefix):
    with pytest.raises(ExperimentNotFoundError, match="no experiment"):
        unchanged.manager.load_latest_checkpoint(exp_hash=prefix)


def test_hash_that_is_no_text_is_a_type_error(unchanged):
    with pytest.raises(TypeError, match="an experiment hash is a str, not int"):
        unchanged.manager.load_config(5)


def test_unknown_hash_in_an_empty_root_says_that_it_is_empty(manager):
    with pytest.raises(ExperimentNotFoundError, match="has no experiments"):
        manager.load_checkpoint(1, "abcd")
    with pytest.raises(ExperimentNotFoundError, match="has no checkpoints to load from"):
        manager.load_checkpoint(1)


@pytest.mark.parametrize("name", ["a/b", "..", "a.b", "a\\b", "", "a b", "a:b"])
def test_model_names_with_separators_are_refused(unchanged, name):
    manager, exp_hash = unchanged.manager, unchanged.exp_hash
    models = {name: unchanged.model, "other": make()[0]}
    with pytest.raises(ValueError, match=r"model name .* cannot be part of a file name"):
        manager.save_model_checkpoint(models, step=2, save_optimizer=False)
    assert manager.current_hash == exp_hash


def test_model_names_that_differ_in_case_only_are_refused(unchanged):
    models = {"G": unchanged.model, "g": make()[0]}
    with pytest.raises(ValueError, match="differ only in case"):
        unchanged.manager.save_model_checkpoint(models, step=2, save_optimizer=False)


# ---------------------------------------------------------------- step
@pytest.mark.parametrize("step", [-1, 10**18])
def test_step_out_of_range_is_refused(unchanged, step):
    with pytest.raises(ValueError, match=f"step is an int from 0 to .*, not {step}"):
        unchanged.save(step)
    with pytest.raises(ValueError, match=f"not {step}"):
        unchanged.manager.load_checkpoint(step)


@pytest.mark.parametrize("step", [1.0, True, "1", np.float64(1), np.True_, torch.tensor(1.0)])
def test_step_that_is_no_int_is_refused(unchanged, step):
    with pytest.raises(TypeError, match="step is an int >= 0, not"):
        unchanged.save(step)
    with pytest.raises(TypeError, match="step is an int >= 0, not"):
        unchanged.manager.load_checkpoint(step)


def test_step_none_without_a_current_step_says_what_to_pass(unchanged):
    with pytest.raises(ValueError, match="step is None and the model has no current_step; pass"):
        unchanged.save(None)


def test_step_none_is_no_step_to_load(unchanged):
    with pytest.raises(ValueError, match="step"):
        unchanged.manager.load_checkpoint(None)


def test_missing_step_names_the_nearest(unchanged):
    with pytest.raises(
        CheckpointNotFoundError,
        match=f"no checkpoint at step 7 in {unchanged.exp_hash}; nearest: 1",
    ):
        unchanged.manager.load_checkpoint(7)


def test_missing_revision_names_those_there_are(unchanged):
    with pytest.raises(CheckpointNotFoundError, match=r"no revision 4 of step 1 .*there: \[1\]"):
        unchanged.manager.load_checkpoint(1, revision=4)


# ---------------------------------------------------------------- order of calls
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.save_model_checkpoint(make()[0], step=1),
        lambda m: m.save_config({}),
        lambda m: m.save_model_architecture(make()[0]),
        lambda m: m.save_data_backup("x.h5"),
    ],
)
def test_save_before_any_hash_names_update(manager, call):
    with pytest.raises(ExperimentNotFoundError, match=r"no experiment is current; call update_ex"):
        call(manager)
    assert files_of(manager.root.path) == {}


def test_load_without_any_model_says_so(unchanged):
    with (
        CheckpointManagerV2(unchanged.manager.root.path) as other,
        pytest.raises(ObjectNotFoundError, match=r"no model.*register_model"),
    ):
        other.load_latest_checkpoint()


# ---------------------------------------------------------------- changed since the update
def test_changed_model_is_named_at_save(unchanged):
    unchanged.model[3] = torch.nn.Linear(5, 4)
    with pytest.raises(StateMismatchError, match=r"3.*update_experiment_hash\(model=") as caught:
        unchanged.save(2)
    assert unchanged.exp_hash in str(caught.value)
    unchanged.model[3] = make(seed=1)[0][3]
    unchanged.manager.load_checkpoint(1, model=unchanged.model, optimizer=unchanged.optimizer)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.append(torch.nn.ReLU()),
        lambda m: m.__delitem__(2),
        lambda m: m[0].weight.requires_grad_(False),
        lambda m: m[0].register_buffer("extra", torch.zeros(1)),
        lambda m: m.double(),
        lambda m: setattr(m[1], "momentum", 0.5),
        lambda m: m.__setitem__(2, torch.nn.GELU()),
    ],
    ids=["added", "removed", "frozen", "buffer", "dtype", "constant", "class"],
)
def test_every_change_of_the_architecture_is_noticed_at_save(run, change):
    change(run.model)
    before = files_of(run.manager.root.path)
    with pytest.raises(StateMismatchError, match="is not the one of experiment"):
        run.save(2)
    assert files_of(run.manager.root.path) == before


def test_changed_registered_sample_set_is_refused(unchanged):
    from weightslab.backend import ledgers

    ledgers.register_samples("train", range(99))
    with pytest.raises(StateMismatchError, match=r"sample set .*call update_experiment_hash\(\)"):
        unchanged.save(2)


def test_changed_config_is_a_warning_once(run, caplog):
    config = dict(CONFIG)
    run.manager.update_experiment_hash(config=config)
    config["lr"] = 7.0
    run.save(1)
    run.save(2)
    assert caplog.text.count("lr: 0.001 -> 7.0") == 1
    assert "call update_experiment_hash(config=...) if that matters" in caplog.text


# ---------------------------------------------------------------- values that cannot be stored
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (torch.zeros(2), r"metadata\.a\[1\] is a Tensor, which is no metadata; use \.item\(\)"),
        (torch.float32, r"metadata\.a\[1\] is a dtype"),
        (object(), r"metadata\.a\[1\] is a builtins\.object, which has no stored form"),
        (np.zeros(2), r"metadata\.a\[1\] is a numpy\.ndarray"),
        (lambda: 0, r"metadata\.a\[1\] is a builtins\.function"),
        (CONFIG.keys(), r"metadata\.a\[1\] is a builtins\.dict_keys"),
    ],
)
def test_metadata_without_a_stored_form_is_named(unchanged, value, named):
    with pytest.raises(NotStorableError, match=named):
        unchanged.save(2, metadata={"a": [1, value]})


def test_metadata_that_holds_itself_is_refused(unchanged):
    loop = []
    loop.append(loop)
    with pytest.raises(NotStorableError, match="nested more than 100 levels"):
        unchanged.save(2, metadata=loop)


@pytest.mark.parametrize("value", ["0.5", None, [1], True, 1j, torch.zeros(2), np.zeros(2)])
def test_metric_that_is_no_number_is_named(unchanged, value):
    with pytest.raises(TypeError, match="metric 'loss' is "):
        unchanged.save(2, metrics={"loss": value})


@pytest.mark.parametrize("metrics", [0.5, [0.5], "loss"])
def test_metrics_that_are_no_mapping_are_refused(unchanged, metrics):
    with pytest.raises(TypeError, match="metrics is a dict of name -> number, not"):
        unchanged.save(2, metrics=metrics)


def test_metric_name_that_is_no_text_is_named(unchanged):
    with pytest.raises(TypeError, match="the name of a metric is a str, not 3"):
        unchanged.save(2, metrics={3: 1.0})


def test_optimizer_that_is_none_is_named(unchanged):
    with pytest.raises(TypeError, match=r"optimizer is a builtins\.str, which has no state_dict"):
        unchanged.manager.save_model_checkpoint(step=2, optimizer="adam")


def saved(manager, model, **more):
    manager.update_experiment_hash(model)
    before = files_of(manager.root.path)
    try:
        manager.save_model_checkpoint(model, step=1, **({"save_optimizer": False} | more))
    finally:
        assert files_of(manager.root.path) == before


def test_model_on_the_meta_device_cannot_be_saved(manager):
    with torch.device("meta"):
        model = make()[0]
    with pytest.raises(NotStorableError, match=r"'0\.\w+' is on the meta device"):
        saved(manager, model)


def test_lazy_model_asks_for_a_forward(manager):
    model = torch.nn.Sequential(torch.nn.LazyLinear(3))
    with pytest.raises((NotStorableError, TypeError), match="forward"):
        saved(manager, model)


def test_complex128_is_named(manager):
    model = torch.nn.Module()
    model.register_buffer("phase", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(NotStorableError, match=r"'phase' .*complex128"):
        saved(manager, model)


def test_sparse_buffer_is_named(manager):
    model = torch.nn.Module()
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(NotStorableError, match=r"'adjacency' is not dense"):
        saved(manager, model)


def test_extra_state_without_a_stored_form_is_named(manager):
    class Odd(torch.nn.Linear):
        def get_extra_state(self):
            return {"stream": object()}

        def set_extra_state(self, state):
            pass

    with pytest.raises(NotStorableError, match=r"_extra_state.*stream is a builtins\.object"):
        saved(manager, torch.nn.Sequential(Odd(2, 2)))


# ---------------------------------------------------------------- newer and damaged roots
def newer(path):
    document, _ = unseal(path.read_bytes(), what="record")
    path.write_bytes(seal(document | {"schema_version": 2}))


def test_manifest_of_a_newer_version_says_how_to_read_it_and_is_not_passed_over(run):
    run.save(1)
    run.save(2)
    newer(run.weights(2, ".json"))
    with pytest.raises(UnsupportedVersionError, match=r"version 2; this .* up to 1; pip install"):
        run.manager.load_checkpoint(2, optimizer=run.optimizer)
    with pytest.raises(UnsupportedVersionError, match="schema version 2"):
        run.manager.load_latest_checkpoint(optimizer=run.optimizer)


def test_save_into_the_step_of_a_newer_manifest_leaves_it_alone(run):
    run.save(1)
    newer(run.weights(1, ".json"))
    content = run.weights(1, ".json").read_bytes()
    assert run.save(1) == run.weights(1, ".r2.safetensors")
    assert run.weights(1, ".json").read_bytes() == content


def test_file_of_an_unknown_codec_is_refused_not_read_as_tensors(run):
    run.save(1)
    path = run.weights(1, ".json")
    document, _ = unseal(path.read_bytes(), what="manifest")
    document["files"][run.weights(1).name]["codec"] = "zstd"
    path.write_bytes(seal(document))
    with pytest.raises(UnsupportedVersionError, match=r"codec 'zstd'.*pip install"):
        run.manager.load_checkpoint(1, optimizer=run.optimizer)


def test_damage_in_another_experiment_does_not_matter(run):
    other = run.manager.update_experiment_hash(config={}).exp_hash
    flip(run.folder / "experiment.json")
    run.save(1)
    assert run.manager.load_latest_checkpoint(optimizer=run.optimizer)["exp_hash"] == other
    with CheckpointManagerV2(run.manager.root.path) as again:
        assert again.update_experiment_hash(config={"new": 1}).is_new


def test_missing_manifest_makes_the_checkpoint_absent(run):
    run.save(1)
    run.save(2)
    run.weights(2, ".json").unlink()
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint at step 2"):
        run.manager.load_checkpoint(2)
    found = run.manager.load_latest_checkpoint(optimizer=run.optimizer)
    assert (found["step"], found["skipped"]) == (1, [])


def test_emptied_manifest_is_a_damaged_checkpoint_not_an_absent_one(run):
    run.save(1)
    run.save(2)
    run.weights(2, ".json").write_bytes(b"")
    with pytest.raises(IntegrityError, match="step_000002"):
        run.manager.load_checkpoint(2)
    assert len(run.manager.load_latest_checkpoint(optimizer=run.optimizer)["skipped"]) == 1
