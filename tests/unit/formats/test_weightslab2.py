"""Roots of WeightsLab 2.0 become experiments, whole or with the reasons of what is missing."""

import builtins
import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from support.foreign import bytes_of, copy_of, expected_of, imported, told_of

from weightslab.components import CheckpointManagerV2
from weightslab.engine.root import CheckpointRoot
from weightslab.formats import import_root
from weightslab.formats.weightslab2 import FORMAT

A, B, C = "156e64a9daf2779053aa48b2", "6724be5edaf2779053aa48b2", "6724be5edaf277905e4f46c2"
EXPECTED = expected_of("upstream_v2_root")
MANIFEST = "checkpoints/manifest.yaml"
CONFIG = "checkpoints/HP/6724be5e/6724be5e_config.yaml"
SNAPSHOT = "checkpoints/data/5e4f46c2/5e4f46c2_data_snapshot"


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved")
    place = copy_of("upstream_v2_root", folder)
    before = bytes_of(place)
    report = import_root(place, folder / "root")
    assert bytes_of(place) == before
    return report, imported(CheckpointRoot(folder / "root")), CheckpointRoot(folder / "root")


@pytest.fixture
def place(tmp_path):
    return copy_of("upstream_v2_root", tmp_path)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "root"


def weights(place, exp_hash, step):
    return place / f"checkpoints/models/daf27790/{exp_hash}_step_{step:06d}.pt"


def key(exp_hash, step):
    return f"{exp_hash}_step_{step:06d}"


def load(path):
    """Read a file as it is, with texts for the members of the enum."""
    from weightslab.formats.held import hold_file
    from weightslab.formats.pickles import load_pickle, stand_in

    with hold_file(path) as held:
        found = load_pickle(
            held, stand_ins=(stand_in("weightslab.components.tracking.TrackingMode"),)
        )
        found["model_state_dict"].pop("tracking_mode")
        return torch.utils._pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, found)


def test_every_step_of_every_experiment_comes_in(moved):
    report, found, root = moved
    assert report.is_complete
    for exp_hash, expected in EXPECTED["experiments"].items():
        entries = [entry for name, (entry, _, _) in found.items() if name.startswith(exp_hash)]
        assert sorted(e.name.step for e in entries) == expected["steps"]
        (mine,) = {e.name.exp_hash for e in entries}
        notes = root.notes.read(mine)
        assert notes.name == expected["experiment_name"]
        assert [n.text for n in notes.notes] == [expected["notes"]] * bool(expected["notes"])
        lr = EXPECTED["configs"][expected["hp_hash"]]["optimizer.lr"]
        assert root.config(mine)["optimizer"]["lr"] == lr
    assert len(root.list_hashes()) == 3


def test_weights_bookkeeping_and_optimizer_are_those_of_the_files(moved):
    for path, expected in EXPECTED["checkpoints"].items():
        _, state, metadata = moved[1][key(expected["exp_hash"], expected["step"])]
        model = state.models["model"]
        tensors = {k: v for k, v in expected["model"].items() if isinstance(v, dict)}
        assert {k: told_of(v) for k, v in model.tensors.items()} == tensors, path
        words = {k: v for k, v in expected["model"].items() if isinstance(v, str)}
        assert str(model.extra["current_step"]) == words["current_step"]
        assert f"'{model.extra['tracking_mode']}'" in words["tracking_mode"]
        optimizer = state.training["optimizer"]["optimizer"]["state"]
        assert optimizer["param_groups"][0]["lr"] == expected["optimizer_lr"]
        moments = {
            str(k): {n: told_of(t) for n, t in v.items()} for k, v in optimizer["state"].items()
        }
        assert moments == expected["optimizer_state"]
        assert metadata["dataloader_iteration_state"]["train_loader"]["batch_size"] == 4


def test_samples_and_discarded_samples_are_those_of_the_snapshot(moved):
    report, _, root = moved
    where = {c.key: c.exp_hash for c in report.checkpoints}
    for exp_hash, expected in EXPECTED["experiments"].items():
        told = EXPECTED["data"][expected["data_hash"]]
        samples = root.samples(where[key(exp_hash, expected["steps"][0])])
        gone = {int(uid) for uid in told["discarded"]}
        assert {int(uid) for uid in samples} == set(range(told["rows"])) - gone
        assert {int(uid) for uid in samples.discarded} == gone


def test_differences_between_the_experiments_are_those_that_people_made(moved):
    report, _, root = moved
    a, b, c = (next(r.exp_hash for r in report.checkpoints if r.key[:24] == h) for h in (A, B, C))
    assert [change.text for change in root.changes(a, b)] == ["optimizer.lr: 0.01 -> 0.02"]
    assert ["2 samples discarded" in change.text for change in root.changes(b, c)] == [True]


def test_lineage_runs_through_the_experiments(moved):
    report, found, _ = moved
    where = {(c.exp_hash, c.step): c.key for c in report.checkpoints}
    parents = {
        name: where.get((entry.parent.exp_hash, entry.parent.step))
        for name, (entry, _, _) in found.items()
    }
    assert parents == {
        key(A, 0): None,
        key(A, 2): key(A, 0),
        key(A, 4): key(A, 2),
        key(B, 4): key(A, 4),
        key(B, 6): key(B, 4),
        key(B, 8): key(B, 6),
        key(C, 8): key(B, 8),
        key(C, 10): key(C, 8),
    }


def test_metadata_of_the_user_and_origin_are_kept(moved):
    _, _, metadata = moved[1][key(C, 10)]
    assert metadata["note"] == "manual"
    assert metadata["timestamp"].startswith("2026-11-23T19:19:31")
    told = metadata["imported_from"]
    assert (told["format"], told["identity"], told["step_is"]) == (
        "weightslab2",
        C,
        "optimizer steps",
    )
    assert told["experiment"]["created"] == "2026-11-23T19:19:31.190407"


def test_training_goes_on_with_weights_optimizer_and_random_numbers(moved, place):
    raw = load(weights(place, C, 10))
    state = raw["rng_state"]
    random.setstate(state["python_random"])
    np.random.set_state(state["numpy_random"])
    torch.set_rng_state(torch.tensor(state["torch_rng"], dtype=torch.uint8))
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    model = torch.nn.Sequential()
    model.add_module("fc1", torch.nn.Linear(4, 8))
    model.add_module("fc2", torch.nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters())
    manager = CheckpointManagerV2(moved[2].path, read_only=True)
    entry = moved[1][key(C, 10)][0]
    manager.load_checkpoint(
        10, entry.name.exp_hash, model, optimizer=optimizer, load_random=True, strict=False
    )
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert torch.equal(model.fc1.weight, raw["model_state_dict"]["fc1.weight"])
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_a_second_import_adds_only_what_is_new(place, target):
    late = weights(place, C, 10)
    late.rename(place / "late")
    import_root(place / "checkpoints", target)
    (place / "late").rename(late)
    report = import_root(place, target)
    assert sorted(c.status for c in report.checkpoints) == ["imported"] + ["known"] * 7
    entry, _, _ = imported(CheckpointRoot(target))[key(C, 10)]
    assert entry.parent.step == 8
    assert len(CheckpointRoot(target).list_hashes()) == 3


# ---------------------------------------------------------------- samples
def without_pyarrow(monkeypatch):
    real = builtins.__import__

    def importing(name, *rest, **more):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_without_pyarrow_the_samples_are_unknown_and_the_report_says_so(place, target, monkeypatch):
    without_pyarrow(monkeypatch)
    report = import_root(place, target)
    assert {c.status for c in report.checkpoints} == {"imported"}
    assert [name for name, _ in report.problems] == [
        "checkpoints/data/53aa48b2/53aa48b2_data_snapshot.json",
        "checkpoints/data/5e4f46c2/5e4f46c2_data_snapshot.json",
    ]
    assert "weightslab[weightslab2]" in report.problems[0][1]
    root = CheckpointRoot(target)
    assert {e.record.components.data for e in root.experiments()} == {None}
    assert len(root.list_hashes()) == 3  # origin keeps B and C apart


def test_a_snapshot_of_an_earlier_version_has_the_rows_in_itself(place):
    rows = [{"sample_id": n, "discarded": n < 2, "tag:x": True} for n in range(5)]
    (place / f"{SNAPSHOT}.json").write_text(json.dumps({"data": rows}))
    (experiment,) = [e for e in FORMAT.open(place).experiments if e.key == C]
    assert (list(experiment.uids), list(experiment.discarded)) == ([2, 3, 4], [0, 1])


def test_a_sample_with_several_rows_is_discarded_only_if_all_are(place):
    rows = [["a", True], ["a", False], ["b", True], ["b", True], ["c", False]]
    told = [{"sample_id": uid, "discarded": flag} for uid, flag in rows]
    (place / f"{SNAPSHOT}.json").write_text(json.dumps({"data": told}))
    (experiment,) = [e for e in FORMAT.open(place).experiments if e.key == C]
    assert (list(experiment.uids), list(experiment.discarded)) == (["a", "c"], ["b"])


@pytest.mark.parametrize("change", [
    {"data_file": "../../../outside.parquet"}, {"data_rows": 11}, {"data_format": "csv"},
    {"data": 3}, {"data": [{"sample_id": None}]}, {"data": [7]},
])  # fmt: skip
def test_a_snapshot_that_cannot_be_right_is_told_and_its_samples_unknown(place, change):
    path = place / f"{SNAPSHOT}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    source = FORMAT.open(place)
    assert [name for name, _ in source.problems] == [f"{SNAPSHOT}.json"]
    known = {e.key: e.uids is not None for e in source.experiments}
    assert known == {A: True, B: True, C: False}


@pytest.mark.parametrize("ending", ["json", "parquet"])
@pytest.mark.parametrize("data", [b"", b"PAR1 and no more", b"{", None])
def test_damaged_samples_do_not_hide_the_weights(place, ending, data):
    path = place / f"{SNAPSHOT}.{ending}"
    path.unlink() if data is None else path.write_bytes(data)
    source = FORMAT.open(place)
    assert len(source.checkpoints) == 8
    is_told = [name for name, _ in source.problems] == [f"{SNAPSHOT}.json"]
    assert is_told or (ending == "json" and data is None)
    assert {e.key: e.uids is None for e in source.experiments}[C]


# ---------------------------------------------------------------- bad input
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{x}: &{x} [{','.join([f'*{y}'] * 10)}]\n" for y, x in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_YAML = {
    "empty": "",
    "cut": "experiments:\n  156e: {",
    "object": "experiments: !!python/object/apply:os.mkdir ['made']\n",
    "name": "experiments: !!python/name:os.system\n",
    "bomb": BOMB + "experiments: {x: *i}\nhyperparameters: {x: *i}\n",
    "itself": "experiments: &a {x: *a}\nhyperparameters: &b [*b]\n",
    "deep": "experiments: " + "[" * 5000 + "\n",
    "twice": "experiments: {}\nexperiments: {}\nhyperparameters: {}\n",
    "large": "#" * (2 << 20),
    "list": "- experiments\n",
    "noise": "\0\1\2",
}


@pytest.mark.parametrize("case", HOSTILE_YAML)
@pytest.mark.parametrize("file", [MANIFEST, CONFIG])
def test_yaml_that_is_not_plain_is_told_and_the_weights_come_in(place, file, case, monkeypatch):
    monkeypatch.chdir(place)
    (place / file).write_text(HOSTILE_YAML[case])
    source = FORMAT.open(place)
    assert file in [name for name, _ in source.problems]
    assert len(source.checkpoints) == 8
    assert not (place / "made").exists()


def test_aliases_that_grow_without_bound_are_refused_as_such(place):
    (place / CONFIG).write_text(HOSTILE_YAML["bomb"])
    ((_, reason),) = FORMAT.open(place).problems
    assert "more than 1,000,000 values" in reason


def test_yaml_with_anchors_and_tuples_as_yaml_dump_writes_them_is_read(place):
    text = "hyperparameters:\n  a: &id001 [1, 2]\n  b: *id001\n  c: !!python/tuple [3, 4]\n"
    (place / CONFIG).write_text(text)
    source = FORMAT.open(place)
    assert source.problems == []
    assert {e.key: e.config for e in source.experiments}[B] == {
        "a": [1, 2],
        "b": [1, 2],
        "c": (3, 4),
    }


def test_without_a_manifest_names_and_order_are_unknown_and_nothing_is_guessed(place, target):
    (place / MANIFEST).unlink()
    report = import_root(place, target)
    assert [name for name, _ in report.problems] == [MANIFEST]
    found = imported(CheckpointRoot(target))
    assert len(found) == 8
    assert found[key(B, 4)][0].parent.kind == "import"


def test_weights_that_the_manifest_names_and_that_are_gone_are_told(place):
    weights(place, B, 8).unlink()
    source = FORMAT.open(place)
    assert source.problems == [(MANIFEST, f"{key(B, 8)}.pt, the newest of {B}, is gone")]
    assert {c.key: c.parent for c in source.checkpoints}[key(C, 8)] is None


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_file_does_not_hide_the_others(place, target, damage):
    path = weights(place, B, 6)
    data = path.read_bytes()
    path.write_bytes({"cut": data[:9000], "empty": b"", "noise": b"\x01" * 500}[damage])
    report = import_root(place, target)
    assert [c.key for c in report.failed] == [key(B, 6)]
    assert imported(CheckpointRoot(target))[key(B, 8)][0].parent.kind == "import"


def test_a_renamed_file_is_told(place, target):
    weights(place, B, 6).rename(weights(place, B, 7))
    (failed,) = import_root(place, target).failed
    assert "says step 6, its name says 7" in failed.reason


def test_files_that_do_not_belong_are_told(place):
    models = place / "checkpoints/models"
    shutil.copytree(models / "daf27790", models / "ffffffff")
    (models / "daf27790" / "best.pt").write_bytes(b"")
    weights(place, A, 6).symlink_to(weights(place, A, 4))
    told = dict(FORMAT.open(place).problems)
    assert told["checkpoints/models/daf27790/best.pt"] == "is no name of a checkpoint"
    assert told[f"checkpoints/models/daf27790/{key(A, 6)}.pt"] == "is no file of its own"
    assert (
        told[f"checkpoints/models/ffffffff/{key(A, 4)}.pt"] == "lies in the folder of another model"
    )
    assert len(told) == 10


def test_a_pickle_that_calls_code_is_refused_and_named(place, target, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    found = load(weights(place, B, 6))
    torch.save(found | {"metadata": Hostile()}, weights(place, B, 6))
    (place / "checkpoints/models/daf27790/daf27790_architecture.pkl").write_bytes(b"cos\nsystem\n.")
    report = import_root(place, target)
    assert [c.key for c in report.failed] == [key(B, 6)]
    assert "posix.mkdir" in report.failed[0].reason
    assert not (tmp_path / "made").exists()


def damaged_random(name):
    def change(state):
        words = state["numpy_random"][1]
        bad = {
            "position": {"numpy_random": ("MT19937", words, 700)},
            "kind": {"numpy_random": ("PCG64", words, 1)},
            "short": {"torch_rng": [1, 2, 3]},
            "gauss": {"python_random": (3, state["python_random"][1], "x")},
            "none": {"python_random": None},
        }
        return {k: v for k, v in state.items() if name != "missing" or k != "torch_rng"} | bad.get(
            name, {}
        )

    return change


@pytest.mark.parametrize("name", ["position", "kind", "short", "gauss", "none", "missing"])
def test_a_random_state_that_cannot_be_restored_stays_in_the_metadata(place, target, name):
    path = weights(place, C, 10)
    found = load(path)
    found["rng_state"] = damaged_random(name)(found["rng_state"])
    torch.save(found, path)
    for other in path.parent.glob("*.pt"):
        if other != path:
            other.unlink()
    import_root(place, target)
    _, state, metadata = imported(CheckpointRoot(target))[key(C, 10)]
    assert "random" not in state.training
    assert "random state" in metadata["imported_from"]["omitted"][0]
    assert metadata["rng_state"] == found["rng_state"]
