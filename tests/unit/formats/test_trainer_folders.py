"""Folders of trainers: what is in them comes in, numbered ones are one experiment, nothing hides."""

import json
import shutil

import pytest
import torch
from support.roots import fast_folder
from support.trainer_folders import (
    WEIGHTS,
    accelerate,
    distributed,
    huggingface,
    lightning,
    live,
    sharded,
    trained,
    trainer,
)

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import FormatError
from weightslab.formats import import_root

MAKERS = {
    "transformers": (trainer, "checkpoint-2"),
    "accelerate": (accelerate, "step_2"),
    "lightning": (lightning, "epoch=1-step=2.ckpt"),
    "torch-distributed": (distributed, "step-2"),
}


@pytest.fixture
def place():
    with fast_folder() as folder:
        yield folder


class Counter:
    """Something with a state."""

    count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def load(root, report, **tracked):
    """Load a checkpoint into live objects; return them and what the load told."""
    model, optimizer, scheduler = live()
    found = report.checkpoints[0]
    with CheckpointManagerV2(root, read_only=True) as manager:
        manager.track(scheduler=scheduler, **tracked)
        told = manager.load_checkpoint(found.step, found.exp_hash, model=model, optimizer=optimizer)
        has_config = bool(manager.get_checkpoint_info(found.exp_hash)["configs"])
        config = manager.load_config(found.exp_hash) if has_config else None
    return model, optimizer, scheduler, told | {"config": config}


@pytest.mark.parametrize("name", ["transformers", "accelerate", "lightning"])
def test_weights_optimizer_and_scheduler_go_into_live_objects(place, name):
    maker, key = MAKERS[name]
    maker(place / "run" / key)
    report = import_root(place / "run", place / "root")
    assert [(c.status, c.format, c.step) for c in report.checkpoints] == [("imported", name, 2)]
    counter = Counter()
    tracked = {"custom_checkpoint_0": counter} if name == "accelerate" else {}
    model, optimizer, scheduler, told = load(place / "root", report, **tracked)
    _, expected, schedule = trained()
    assert counter.count == (3 if tracked else 0)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in WEIGHTS.items())
    assert optimizer.state_dict()["param_groups"] == expected.state_dict()["param_groups"]
    for number, state in expected.state_dict()["state"].items():
        mine = optimizer.state_dict()["state"][number]
        assert all(torch.equal(mine[k], v) for k, v in state.items())
    assert scheduler.state_dict() == schedule.state_dict()
    assert told["step"] == 2


def test_a_trainer_folder_brings_epoch_metrics_config_and_random_state(place):
    trainer(place / "checkpoint-2")
    report = import_root(place / "checkpoint-2", place / "root")
    *_, told = load(place / "root", report)
    assert told["epoch"] == 1
    assert {k: told["metrics"][k] for k in ("loss", "learning_rate")} == {
        "loss": 0.25, "learning_rate": 0.01,
    }  # fmt: skip
    assert told["metrics"]["eval_loss"] != told["metrics"]["eval_loss"]  # NaN
    assert told["metadata"]["trainer_state"]["max_steps"] == 9
    assert told["config"] == {"hidden_size": 3}
    (entry,) = CheckpointManagerV2(place / "root", read_only=True).root.checkpoints()
    manifest = next((place / "root").glob("checkpoints/*/model/*_step_000002.json"))
    assert entry.name.step == 2
    assert set(json.loads(manifest.read_text())["state"]["training"]["random"]) == {
        "bytes", "numpy", "python", "torch",
    }  # fmt: skip


def test_a_lightning_file_brings_epoch_metrics_config_and_loops(place):
    lightning(place / "version_3" / "checkpoints" / "last.ckpt")
    report = import_root(place / "version_3", place / "root")
    *_, told = load(place / "root", report)
    assert (told["epoch"], told["config"]) == (1, {"lr": 0.01})
    assert told["metrics"] == {"val_loss": 0.5, "best_val_loss": 0.25}
    assert "fit_loop" in told["metadata"]["lightning"]["loops"]
    assert told["metadata"]["callbacks"]["ModelCheckpoint{'monitor': 'val_loss'}"] == {
        "monitor": "val_loss", "best_model_score": 0.25, "current_score": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("maker", "names", "steps"),
    [
        (trainer, ("checkpoint-10", "checkpoint-2"), [2, 10]),
        (accelerate, ("step_10", "step_2"), [2, 10]),
        (accelerate, ("checkpoint_0", "checkpoint_1"), [2, 10]),
        (distributed, ("step-10", "step-2"), [2, 2]),
    ],
)
def test_numbered_folders_are_one_experiment_in_the_order_of_steps(place, maker, names, steps):
    for name in names:
        number = 10 if name.endswith(("10", "_1")) else 2
        maker(place / "run" / name, *([] if maker is distributed else [number]))
    report = import_root(place / "run", place / "root")
    assert report.is_complete
    assert [c.step for c in report.checkpoints] == steps
    assert len({c.exp_hash for c in report.checkpoints}) == 1


def test_a_run_that_grows_brings_in_what_is_new(place):
    trainer(place / "run" / "checkpoint-2")
    first = import_root(place / "run", place / "root")
    trainer(place / "run" / "checkpoint-4", 4)
    (place / "run").rename(place / "moved")
    second = import_root(place / "moved", place / "root")
    assert [c.status for c in second.checkpoints] == ["known", "imported"]
    assert {c.exp_hash for c in second.checkpoints} == {first.checkpoints[0].exp_hash}


def test_a_damaged_folder_does_not_hide_its_neighbours(place):
    for step in (2, 4, 6):
        trainer(place / f"checkpoint-{step}", step)
    (place / "checkpoint-4" / "model.safetensors").write_bytes(b"cut")
    (place / "checkpoint-6" / "model.safetensors").unlink()
    (place / "checkpoint-6" / "model.safetensors.index.json").write_text("{")
    report = import_root(place, place / "root")
    assert [(c.key, c.status) for c in report.checkpoints] == [
        ("checkpoint-2", "imported"), ("checkpoint-4", "failed"),
    ]  # fmt: skip
    assert "model.safetensors has 3 bytes" in report.checkpoints[1].reason
    assert report.problems == (
        (
            "checkpoint-6",
            (
                "model.safetensors.index.json is not valid JSON: "
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
            ),
        ),
    )


def test_parts_that_cannot_be_read_are_told_and_the_rest_comes_in(place):
    folder = trainer(place / "checkpoint-2")
    (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:200])
    (folder / "scheduler.pt").write_bytes(b"")
    (folder / "trainer_state.json").write_text("[]")
    report = import_root(folder, place / "root")
    assert [c.status for c in report.checkpoints] == ["imported"]
    assert [line.split(" ")[0] for line in report.checkpoints[0].damaged] == [
        "trainer_state.json", "optimizer.pt", "scheduler.pt",
    ]  # fmt: skip
    assert not report.is_complete
    assert "not used: checkpoint-2: scheduler.pt is empty" in str(report)
    again = import_root(folder, place / "root")
    assert [c.status for c in again.checkpoints] == ["known"]
    assert not again.is_complete


def test_a_mixed_folder_is_looked_into_as_a_whole(place):
    top = huggingface(place / "run")
    trainer(top / "checkpoint-2")
    trainer(top / "checkpoint-4", 4)
    torch.save(WEIGHTS, top / "plain.pt")
    (top / "extra.safetensors").write_bytes((top / "model.safetensors").read_bytes())
    (top / "README.md").write_text("text")
    lightning(top / "logs" / "last.ckpt")
    distributed(top / "checkpoint-2" / "pytorch_model_fsdp_0")
    report = import_root(top, place / "root")
    assert report.is_complete
    assert sorted((c.format, c.key) for c in report.checkpoints) == [
        ("huggingface", "run"),
        ("lightning", "last.ckpt"),
        ("safetensors", "extra.safetensors"),
        ("torch", "plain.pt"),
        ("torch-distributed", "pytorch_model_fsdp_0"),
        ("transformers", "checkpoint-2"),
        ("transformers", "checkpoint-4"),
    ]


def test_tensors_that_folders_share_are_stored_once(place):
    torch.manual_seed(0)
    frozen = {"frozen": torch.randn(1 << 19)}  # 2 MiB: reuse pays from 1 MiB on
    for step in (1, 2, 3):
        weights = frozen | {"head": torch.full((8,), float(step))}
        huggingface(trainer(place / "run" / f"checkpoint-{step}"), weights=weights)
    assert import_root(place / "run", place / "root").is_complete
    files = {p.stat().st_ino: p.stat().st_size for p in (place / "root").rglob("*.safetensors")}
    assert sum(files.values()) < 3 << 20


# ---------------------------------------------------------------- Hugging Face
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_are_put_together(place, ending):
    sharded(place / "model", ending=ending)
    report = import_root(place / "model", place / "root")
    assert [(c.format, c.status) for c in report.checkpoints] == [("huggingface", "imported")]
    model, _, _ = live()
    with CheckpointManagerV2(place / "root", read_only=True) as manager:
        manager.load_latest_checkpoint(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in WEIGHTS.items())


def test_a_cache_of_hugging_face_is_read_through_its_links(place):
    home = place / "models--org--name"
    folder = huggingface(home / "snapshots" / "abc")
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(home / "blobs" / str(number))
        path.symlink_to(f"../../blobs/{number}")
    report = import_root(home, place / "root")
    assert report.is_complete
    assert [c.status for c in report.checkpoints] == ["imported"]


BAD_INDEXES = {
    "goes up": {"layer.bias": "../../etc/passwd"},
    "absolute": {"layer.bias": "/etc/passwd"},
    "up in windows": {"layer.bias": "..\\secret.safetensors"},
    "drive": {"layer.bias": "C:secret.safetensors"},
    "dot": {"layer.bias": "."},
    "zero": {"layer.bias": "a\0b"},
    "not a name": {"layer.bias": 3},
    "missing": {"layer.bias": "model-00009-of-00009.safetensors"},
    "wrong shard": {"layer.bias": "model-00001-of-00002.safetensors"},
    "no such tensor": {"other": "model-00001-of-00002.safetensors"},
    "link": {"layer.bias": "link.safetensors"},
}


@pytest.mark.parametrize("name", BAD_INDEXES)
def test_an_index_that_does_not_fit_is_refused(place, name):
    sharded(place / "source" / "bad", **BAD_INDEXES[name])
    huggingface(place / "source" / "good")
    (place / "secret.safetensors").write_bytes(
        (place / "source" / "good" / "model.safetensors").read_bytes()
    )
    (place / "source" / "bad" / "link.safetensors").symlink_to(place / "secret.safetensors")
    report = import_root(place / "source", place / "root")
    assert not report.is_complete
    assert [c.key for c in report.checkpoints if c.status == "imported"] == ["good"]
    reasons = [c.reason for c in report.failed] + [reason for _, reason in report.problems]
    assert any(
        text in reason
        for reason in reasons
        for text in ("no name of a file", "leads out", "not there", "is not in", "weight_map")
    )


def test_a_tensor_in_two_shards_and_a_name_twice_in_an_index_are_refused(place):
    sharded(place / "a")
    shutil.copy(
        place / "a" / "model-00001-of-00002.safetensors",
        place / "a" / "model-00002-of-00002.safetensors",
    )
    index = sharded(place / "b") / "model.safetensors.index.json"
    index.write_text(
        index.read_text().replace('"layer.weight"', '"layer.bias": "x", "layer.weight"')
    )
    report = import_root(place, place / "root")
    assert "is in model-00001-of-00002.safetensors and in model-00002" in report.failed[0].reason
    assert report.problems[0][0] == "b"
    assert "stands there twice" in report.problems[0][1]


def test_links_that_lead_out_of_a_source_are_named_and_not_followed(place):
    torch.save(WEIGHTS, place / "secret.pt")
    lightning(place / "source" / "epoch=0-step=2.ckpt")
    (place / "source" / "last.ckpt").symlink_to("epoch=0-step=2.ckpt")
    (place / "source" / "out.pt").symlink_to(place / "secret.pt")
    (place / "source" / "loop").symlink_to("loop")
    report = import_root(place / "source", place / "root")
    assert [c.key for c in report.checkpoints] == ["epoch=0-step=2.ckpt"]
    assert {name for name, _ in report.problems} == {"out.pt", "loop"}


# ---------------------------------------------------------------- torch.distributed.checkpoint
def test_an_optimizer_of_a_distributed_checkpoint_goes_into_a_live_one(place):
    distributed(place / "dcp")
    report = import_root(place / "dcp", place / "root")
    model, optimizer, _ = live()
    with CheckpointManagerV2(place / "root", read_only=True) as manager:
        manager.load_checkpoint(2, report.checkpoints[0].exp_hash, model=model, optimizer=optimizer)
    _, expected, _ = trained()
    assert optimizer.state_dict()["param_groups"] == expected.state_dict()["param_groups"]
    for number, state in expected.state_dict()["state"].items():
        mine = optimizer.state_dict()["state"][number]
        assert all(torch.equal(mine[k], v) for k, v in state.items())


def test_a_state_dict_alone_and_one_level_more_are_models_too(place):
    distributed(place / "a", dict(WEIGHTS))
    distributed(place / "b", {"app": {"model": dict(WEIGHTS), "step": 5}})
    report = import_root(place, place / "root")
    assert [c.status for c in report.checkpoints] == ["imported", "imported"]
    assert [c.step for c in report.checkpoints] == [0, 5]


def test_a_sharded_checkpoint_of_lightning_is_put_together(place):
    _, optimizer, _ = trained()
    state = optimizer.state_dict()
    names = list(WEIGHTS)
    group = {**state["param_groups"][0], "params": names}
    moments = {names[number]: entry for number, entry in state["state"].items()}
    folder = distributed(
        place / "epoch=1-step=2.ckpt",
        {"model": dict(WEIGHTS), "optimizer_0": {"state": moments, "param_groups": [group]}},
    )
    lightning(place / "whole.ckpt")
    meta = torch.load(place / "whole.ckpt", weights_only=True)
    del meta["state_dict"], meta["optimizer_states"]
    torch.save(meta, folder / "meta.pt")
    report = import_root(folder, place / "root")
    assert report.is_complete
    _, other, _, told = load(place / "root", report)
    assert (told["step"], told["epoch"], told["config"]) == (2, 1, {"lr": 0.01})
    for number, entry in state["state"].items():
        mine = other.state_dict()["state"][number]
        assert all(torch.equal(mine[k], v) for k, v in entry.items())


def test_an_optimizer_that_is_flattened_over_names_is_left_out_and_told(place):
    flat = {"state.layer.weight.step": torch.tensor(1.0), "param_groups.layer.weight.lr": 0.1}
    distributed(place / "dcp", {"model": dict(WEIGHTS), "optimizer": flat})
    (found,) = import_root(place / "dcp", place / "root").checkpoints
    assert found.status == "imported"
    assert found.omitted == (
        "optimizer: flattened over the names of parameters; its groups are not told",
    )


def test_a_distributed_folder_without_a_file_or_with_a_short_one_is_refused(place):
    for name in ("gone", "short", "good"):
        distributed(place / name)
    (place / "gone" / "__0_0.distcp").unlink()
    whole = (place / "short" / "__0_0.distcp").read_bytes()
    (place / "short" / "__0_0.distcp").write_bytes(whole[: len(whole) // 2])
    report = import_root(place, place / "root")
    assert [(c.key, c.status) for c in report.checkpoints] == [
        ("good", "imported"), ("short", "failed"),
    ]  # fmt: skip
    assert report.problems == (("gone", "__0_0.distcp is not in gone"),)
    assert "__0_0.distcp has" in report.checkpoints[1].reason


def test_only_a_format_that_was_asked_for_is_used(place):
    trainer(place / "checkpoint-2")
    report = import_root(place, place / "root", format="huggingface")
    assert [c.format for c in report.checkpoints] == ["huggingface"]
    with pytest.raises(FormatError, match="nothing in"):
        import_root(place, place / "root", format="lightning")
