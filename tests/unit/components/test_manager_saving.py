"""Saving: what is on disk afterwards, what is a no-op, what becomes a revision."""

import json
import logging

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from support.training import bits, files_of, flip, make, train

from weightslab.backend import ledgers
from weightslab.engine.errors import ExperimentNotFoundError


def manifest_of(run, step, revision=""):
    return json.loads(run.weights(step, f"{revision}.json").read_text())


def test_path_is_the_weights_file_of_the_step(run):
    assert run.save(100) == run.weights(100)


def test_weights_file_is_read_by_safetensors_alone(run):
    assert bits(load_file(run.save(1))) == bits(dict(run.model.state_dict()))


def test_save_writes_weights_training_and_manifest_and_nothing_else(run):
    train(run.model, run.optimizer)
    before = set(files_of(run.folder))
    run.save(1)
    stem = f"model/{run.exp_hash}_step_000001"
    assert set(files_of(run.folder)) - before == {
        f"{stem}.safetensors",
        f"{stem}.training.safetensors",
        f"{stem}.json",
    }


def test_weights_only_save_has_no_training_file(run):
    run.save(1, save_optimizer=False)
    assert not run.weights(1, ".training.safetensors").exists()
    assert manifest_of(run, 1)["state"] == {"model": {}}


def test_same_content_again_writes_nothing(run):
    run.save(1, metadata={"a": 1}, metrics={"loss": 0.5})
    before = files_of(run.folder)
    assert run.save(1, metadata={"a": 1}, metrics={"loss": 0.5}) == run.weights(1)
    assert files_of(run.folder) == before


@pytest.mark.parametrize("change", [{"metadata": {"a": 2}}, {"metrics": {"loss": 0.25}}])
def test_other_metadata_or_metrics_become_a_revision(run, change):
    run.save(1, metadata={"a": 1}, metrics={"loss": 0.5})
    first = files_of(run.folder)
    path = run.save(1, **({"metadata": {"a": 1}, "metrics": {"loss": 0.5}} | change))
    assert path == run.weights(1, ".r2.safetensors")
    assert first.items() <= files_of(run.folder).items()


def test_other_weights_become_a_revision_and_the_old_ones_stay(run):
    run.save(1)
    old = bits(dict(run.model.state_dict()))
    train(run.model, run.optimizer)
    path = run.save(1)
    assert bits(load_file(run.weights(1))) == old
    assert bits(load_file(path)) == bits(dict(run.model.state_dict()))


def test_revision_by_the_same_training_is_not_warned_about_one_by_another_is(run, caplog):
    run.save(1)
    train(run.model, run.optimizer)
    run.save(1)
    assert caplog.messages == []
    other, optimizer = make(seed=1)
    run.manager.save_model_checkpoint(other, step=1, optimizer=optimizer)
    assert f"{run.exp_hash}_step_000001.r2 is kept" in caplog.text
    assert f"{run.exp_hash}_step_000001.r3 answers" in caplog.text


def test_step_is_taken_from_the_model_if_none_is_given(run):
    run.model.current_step = 12
    run.manager.update_experiment_hash(run.model)
    path = run.manager.save_model_checkpoint(run.model, optimizer=run.optimizer)
    assert path.name.endswith("_step_000012.safetensors")


def test_numpy_integer_is_a_step(run):
    import numpy as np

    assert run.save(np.int64(5)) == run.weights(5)


def test_step_zero_and_a_step_of_many_digits_are_steps(run):
    run.save(0)
    run.save(12_345_678)
    assert run.manager.get_checkpoint_info()["steps"] == [0, 12_345_678]


def test_objects_may_come_from_the_ledger(manager):
    model, optimizer = make()
    train(model, optimizer)
    ledgers.register_model("main", model)
    ledgers.register_optimizer("adamw", optimizer)
    ledgers.register_hyperparams("main", {"lr": 0.01})
    ledgers.register_samples("train", range(10))
    exp_hash, is_new = manager.update_experiment_hash()
    assert is_new
    assert exp_hash == manager.update_experiment_hash(model, {"lr": 0.01}, range(10)).exp_hash
    path = manager.save_model_checkpoint(model_name="main", optimizer_name="adamw", step=1)
    assert path.with_suffix(".training.safetensors").exists()


def test_model_given_last_is_saved_if_none_is_named(run):
    path = run.manager.save_model_checkpoint(step=1, save_optimizer=False)
    assert bits(load_file(path)) == bits(dict(run.model.state_dict()))


def test_unknown_ledger_name_names_the_ones_there_are(run):
    ledgers.register_model("main", run.model)
    with pytest.raises(LookupError, match=r"no model 'mian' is registered; nearest: 'main'"):
        run.manager.save_model_checkpoint(model_name="mian", step=1)


def test_missing_optimizer_is_said_once(run, caplog):
    run.manager.save_model_checkpoint(run.model, step=1)
    run.manager.save_model_checkpoint(run.model, step=2)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "save_optimizer=False" in caplog.text


def test_metrics_may_be_tensors_and_numpy_and_not_finite(run):
    import numpy as np

    run.save(1, metrics={"a": torch.tensor(0.5), "b": np.float32(2), "c": float("nan"), "d": 3})
    found = run.manager.root.latest(run.exp_hash).metrics
    assert (found["a"], found["b"], found["d"]) == (0.5, 2.0, 3)
    assert found["c"] != found["c"]


def test_manifest_has_every_field(run):
    run.save(7, metadata={"note": "x"}, metrics={"loss": 0.5})
    manifest = manifest_of(run, 7)
    assert (manifest["schema"], manifest["schema_version"]) == ("weightslab.checkpoint", 1)
    assert (manifest["step"], manifest["revision"], manifest["sequence"]) == (7, 1, 1)
    assert manifest["created_at"].endswith("+00:00")
    assert manifest["metadata"] == {"note": "x"}
    assert manifest["metrics"] == {"loss": 0.5}
    assert manifest["config_file"] == f"{run.exp_hash}_config.yaml"
    assert manifest["experiment_digest"].startswith(f"wl1:sha256:{run.exp_hash}")
    assert manifest["parent"]["kind"] == "fresh"
    assert manifest["parent"]["exact"] is True
    weights = manifest["files"][f"{run.exp_hash}_step_000007.safetensors"]
    assert weights["size_bytes"] == run.weights(7).stat().st_size
    assert weights["codec"] == "safetensors"
    tensor = manifest["tensors"]["model/0.weight"]
    assert (tensor["dtype"], tensor["shape"], tensor["size_bytes"]) == ("F32", [5, 3], 60)
    assert {"torch", "python", "weightslab"} <= set(manifest["versions"])


def test_parent_of_the_second_checkpoint_is_the_first(run):
    run.save(1)
    train(run.model, run.optimizer)
    run.save(2)
    parent = manifest_of(run, 2)["parent"]
    assert (parent["kind"], parent["exp_hash"], parent["step"]) == ("checkpoint", run.exp_hash, 1)
    assert parent["manifest_digest"] == run.manager.root.get_checkpoint(run.exp_hash, 1).digest


def test_parent_after_a_change_is_in_the_old_experiment(run):
    run.save(1)
    new = run.manager.update_experiment_hash(config={"lr": 5.0}).exp_hash
    run.manager.save_model_checkpoint(run.model, step=2, optimizer=run.optimizer)
    entry = run.manager.root.latest(new)
    assert (entry.parent.exp_hash, entry.parent.step, entry.parent.exact) == (run.exp_hash, 1, True)
    assert run.manager.get_checkpoint_info()["parents"] == [run.exp_hash]


def test_experiment_without_a_save_between_is_named_in_via(run):
    run.save(1)
    between = run.manager.update_experiment_hash(config={"lr": 5.0}).exp_hash
    last = run.manager.update_experiment_hash(config={"lr": 6.0}).exp_hash
    run.manager.save_model_checkpoint(run.model, step=2, optimizer=run.optimizer)
    parent = run.manager.root.latest(last).parent
    assert (parent.exp_hash, parent.via, parent.exact) == (run.exp_hash, (between,), False)


def test_stated_parent_is_recorded(run):
    run.save(1)
    other, optimizer = make(seed=3)
    update = run.manager.update_experiment_hash(other, {"lr": 9.0}, parent=(run.exp_hash[:8], 1))
    run.manager.save_model_checkpoint(other, step=5, optimizer=optimizer)
    parent = run.manager.root.latest(update.exp_hash).parent
    assert (parent.kind, parent.exp_hash, parent.step) == ("checkpoint", run.exp_hash, 1)


def test_tied_weights_are_stored_once_and_safetensors_reads_them(manager):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(7, 3)
            self.head = torch.nn.Linear(3, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.embed(x))

    model, fresh = Tied(), Tied()
    manager.update_experiment_hash(model)
    path = manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["embed.weight"]
    load_model(fresh, path)
    assert bits(fresh.head.weight) == bits(model.embed.weight)
    again = Tied()
    manager.load_checkpoint(1, model=again)
    assert again.head.weight is again.embed.weight
    assert bits(again.embed.weight) == bits(model.embed.weight)


def test_model_without_any_tensor_can_be_saved_and_loaded(manager):
    manager.update_experiment_hash(torch.nn.Sequential(torch.nn.ReLU()))
    manager.save_model_checkpoint(
        step=1, save_optimizer=False, model=torch.nn.Sequential(torch.nn.ReLU())
    )
    assert manager.load_latest_checkpoint(torch.nn.Sequential(torch.nn.ReLU()))["step"] == 1


def test_two_models_with_two_optimizers_are_one_checkpoint(manager):
    generator, g_optimizer = make(seed=1)
    critic, c_optimizer = make(hidden=4, seed=2)
    models = {"generator": generator, "critic": critic}
    optimizers = {"g": g_optimizer, "c": c_optimizer}
    train(generator, g_optimizer), train(critic, c_optimizer)
    exp_hash, _ = manager.update_experiment_hash(models)
    path = manager.save_model_checkpoint(models, step=3, optimizer=optimizers)
    assert path.name == f"{exp_hash}_step_000003.model.critic.safetensors"
    assert bits(load_file(path)) == bits(dict(critic.state_dict()))
    fresh_g, fresh_go = make(seed=8)
    fresh_c, fresh_co = make(hidden=4, seed=9)
    manager.load_checkpoint(
        3, model={"critic": fresh_c, "generator": fresh_g}, optimizer={"c": fresh_co, "g": fresh_go}
    )
    assert bits(fresh_g.state_dict()) == bits(generator.state_dict())
    assert bits(fresh_co.state_dict()) == bits(c_optimizer.state_dict())


def test_dict_of_models_has_one_hash_in_any_order(manager):
    one, two = make()[0], make(hidden=4)[0]
    first = manager.update_experiment_hash({"a": one, "b": two})
    assert manager.update_experiment_hash({"b": two, "a": one}).exp_hash == first.exp_hash
    assert manager.update_experiment_hash({"a": two, "b": one}).exp_hash != first.exp_hash


def test_experiment_deleted_meanwhile_is_said_and_can_be_begun_again(run):
    run.manager.root.delete(run.exp_hash)
    with pytest.raises(ExperimentNotFoundError, match=run.exp_hash):
        run.save(1)
    assert tuple(run.manager.update_experiment_hash()) == (run.exp_hash, True)
    run.save(1)
    assert run.manager.root.verify() == []


def test_save_over_a_damaged_checkpoint_keeps_it_and_writes_a_revision(run, caplog):
    run.save(1)
    flip(run.weights(1))
    damaged = run.weights(1).read_bytes()
    assert run.save(1) == run.weights(1, ".r2.safetensors")
    assert run.weights(1).read_bytes() == damaged
    assert "is damaged and is kept" in caplog.text
