"""Numbered roots become experiments, whole or with the reasons of what is missing."""

import json
import os
import pickle
import shutil

import pytest
import torch
from support.foreign import bytes_of, copy_of, expected_of, imported, told_of, without_sums

from weightslab.engine.root import CheckpointRoot
from weightslab.formats import import_root
from weightslab.formats.numbered import FORMAT
from weightslab.formats.numbered_table import read_table

TABLE = "checkpoints.metadata"


def edit(folder, **changes):
    """Change entries of the table: id_2_prnt={"1": 2}."""
    table = json.loads((folder / TABLE).read_text())
    for key, entries in changes.items():
        table[key] |= entries
    (folder / TABLE).write_text(json.dumps(table))


def name_of(folder, number):
    return next(folder.glob(f"ckpt_{number}_*")).name


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A root that lies elsewhere than where it was written, and what became of it."""
    folder = tmp_path_factory.mktemp("moved")
    place = copy_of("v1_root", folder)
    before = bytes_of(place)
    report = import_root(place, folder / "root")
    assert bytes_of(place) == before
    return report, imported(CheckpointRoot(folder / "root")), folder


@pytest.fixture
def place(tmp_path):
    return copy_of("v1_root", tmp_path)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "root"


def test_every_checkpoint_of_a_moved_root_comes_in_and_nothing_else(moved):
    report, found, _ = moved
    assert report.is_complete
    assert sorted(found) == [
        expected_of("v1_root")["checkpoints"][str(n)]["file"] for n in range(5)
    ]


def test_weights_and_optimizer_are_those_of_the_files(moved):
    for expected in expected_of("v1_root")["checkpoints"].values():
        _, state, _ = moved[1][expected["file"]]
        tensors = state.models["model"].tensors
        assert {k: told_of(v) for k, v in tensors.items()} == without_sums(expected["model"])
        optimizer = state.training["optimizer"]["optimizer"]["state"]
        assert optimizer["param_groups"] == expected["optimizer"]["param_groups"]
        moments = {
            str(k): {n: told_of(t) for n, t in v.items()} for k, v in optimizer["state"].items()
        }
        told = expected["optimizer"]["state"]
        assert moments == {k: without_sums(v) for k, v in told.items()}


def test_parents_become_lineage_also_the_one_that_was_written_as_a_text(moved):
    report, found, _ = moved
    names = {e["file"]: e for e in expected_of("v1_root")["checkpoints"].values()}
    where = {c.key: (c.exp_hash, c.step) for c in report.checkpoints}
    files = {number: file["file"] for number, file in expected_of("v1_root")["checkpoints"].items()}
    for key, (entry, _, _) in found.items():
        parent = names[key]["parent"]
        link = entry.parent
        if parent == -1:
            assert link.kind == "import"
        else:
            assert (link.exp_hash, link.step) == where[files[str(parent)]]


def test_learning_rate_batch_size_and_name_are_the_config(moved):
    _, found, folder = moved
    root = CheckpointRoot(folder / "root")
    for expected in expected_of("v1_root")["checkpoints"].values():
        entry, _, metadata = found[expected["file"]]
        keys = ("learning_rate", "batch_size", "experiment_name")
        told = {key: expected[key] for key in keys}
        assert root.config(entry.name.exp_hash) == told
        assert metadata["experiment_name"] == expected["experiment_name"]
        assert root.notes.read(entry.name.exp_hash).name == expected["experiment_name"]
    hashes = {
        found[e["file"]][0].name.exp_hash for e in expected_of("v1_root")["checkpoints"].values()
    }
    assert len(hashes) == 2  # lr 0.1 and 0.01


def test_the_step_is_the_id_and_says_so(moved):
    for key, (entry, _, metadata) in moved[1].items():
        assert entry.name.step == int(key.split("_")[1])
        assert metadata["imported_from"]["step_is"] == "checkpoint id"


def test_the_whole_model_is_not_run_and_told_by_its_digest(moved):
    _, _, metadata = moved[1][expected_of("v1_root")["checkpoints"]["3"]["file"]]
    assert metadata["model_full"]["size_bytes"] == 5760
    assert metadata["imported_from"]["omitted"] == ["model_full: a pickled model, which is code"]


def test_a_second_import_from_another_place_adds_nothing(moved, tmp_path):
    elsewhere = copy_of("v1_root", tmp_path)
    report = import_root(elsewhere, moved[2] / "root")
    assert {c.status for c in report.checkpoints} == {"known"}


def test_roots_of_the_wrappers_keep_their_bookkeeping_and_leave_the_config_unknown(
    tmp_path, target
):
    import_root(copy_of("v1_root_watch", tmp_path), target)
    root = CheckpointRoot(target)
    for expected in expected_of("v1_root_watch")["checkpoints"].values():
        entry, state, _ = imported(root)[expected["file"]]
        model = state.models["model"]
        tensors = {k: v for k, v in expected["model"].items() if isinstance(v, dict)}
        assert {k: told_of(v) for k, v in model.tensors.items()} == tensors
        words = {k: v for k, v in expected["model"].items() if isinstance(v, str)}
        assert set(model.extra) == set(words)
        assert f"'{model.extra['tracking_mode']}'" in words["tracking_mode"]
        assert state.training is None
        assert root.get_experiment(entry.name.exp_hash).record.components.config is None


def test_a_dry_run_writes_nothing(place, target):
    report = import_root(place, target, dry_run=True)
    assert {c.status for c in report.checkpoints} == {"would import"}
    assert not target.exists()


# ---------------------------------------------------------------- bad input
def test_a_file_that_is_gone_is_named_and_its_child_has_an_unknown_parent(place, target):
    gone = place / name_of(place, 2)
    gone.unlink()
    report = import_root(place, target)
    assert report.problems == (("id 2", f"its file {gone.name} is gone"),)
    assert [c.status for c in report.checkpoints] == ["imported"] * 4
    entry, _, _ = imported(CheckpointRoot(target))[name_of(place, 4)]
    assert (entry.parent.kind, entry.parent.exact) == ("import", None)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "protected"])
def test_a_damaged_file_does_not_hide_the_others(place, target, damage):
    path = place / name_of(place, 2)
    data = path.read_bytes()
    protected = bytearray(data)
    protected[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first entry in the directory
    path.write_bytes(
        {"cut": data[:3000], "empty": b"", "noise": b"\x01" * 500, "protected": protected}[damage]
    )
    report = import_root(place, target)
    assert [c.key for c in report.failed] == [path.name]
    assert report.failed[0].reason
    assert len(report.checkpoints) == 5


def test_parents_in_a_circle_are_told_and_unknown(place):
    edit(place, id_2_prnt={"1": 2})
    source = FORMAT.open(place)
    assert source.problems == [(TABLE, "the parents go in a circle: 1 -> 2 -> 1")]
    parents = {c.step: c.parent for c in source.checkpoints}
    assert parents[1] is None
    assert parents[2] is None
    assert parents[4] == name_of(place, 2)


def test_a_checkpoint_that_is_its_own_parent_is_a_circle(place):
    edit(place, id_2_prnt={"0": 0})
    assert FORMAT.open(place).problems == [(TABLE, "the parents go in a circle: 0 -> 0")]


def test_a_parent_that_is_not_there_is_told(place):
    edit(place, id_2_prnt={"3": 17})
    source = FORMAT.open(place)
    assert source.problems == [("id 3", f"its parent 17 is not in {TABLE}")]
    assert not next(c for c in source.checkpoints if c.step == 3).is_first


def test_a_parent_that_was_loaded_by_its_path_is_found_by_its_name(place):
    edit(place, id_2_prnt={"3": f"/elsewhere/{name_of(place, 2)}"})
    source = FORMAT.open(place)
    assert next(c for c in source.checkpoints if c.step == 3).parent == name_of(place, 2)


def test_a_second_file_of_an_id_is_told_and_can_be_imported_by_itself(place, target):
    shutil.copy(place / name_of(place, 4), place / "ckpt_2_00000000-0000")
    report = import_root(place, target)
    assert [name for name, _ in report.problems] == ["ckpt_2_00000000-0000"]
    assert len(report.checkpoints) == 5
    alone = import_root(place / "ckpt_2_00000000-0000", target)
    assert [(c.status, c.step) for c in alone.checkpoints] == [("imported", 2)]


def test_an_id_that_stands_twice_in_the_table_is_told(place):
    text = (place / TABLE).read_text()
    (place / TABLE).write_text(text.replace('"id_2_prnt": {', '"id_2_prnt": {"4": 3, '))
    table = read_table(place)
    assert table.problems == [("id 4", "stands twice in id_2_prnt; the last one counts")]
    assert table.parents[4] == 2


def test_two_ids_of_one_file_are_told(place):
    edit(place, id_2_path={"1": f"x/{name_of(place, 0)}"})
    source = FORMAT.open(place)
    assert source.problems[-1] == ("id 1", f"its file {name_of(place, 0)} is that of id 0, too")


@pytest.mark.parametrize(
    "path", ["../../outside", "/etc/hostname", "..", "C:\\x\\..", "", 7, "a\0b"]
)
def test_a_path_leads_to_nothing_outside_of_the_folder(place, path, target):
    (place.parent / "outside").write_bytes((place / name_of(place, 2)).read_bytes())
    edit(place, id_2_path={"2": path})
    source = FORMAT.open(place)
    assert "id 2" in [name for name, _ in source.problems]
    assert all(file.parent == place for c in source.checkpoints for file in c.files)


def test_a_link_is_not_followed(place):
    path = place / name_of(place, 2)
    path.rename(place.parent / "outside")
    path.symlink_to(place.parent / "outside")
    assert FORMAT.open(place).problems == [
        ("id 2", f"its file {path.name} is a link, which is not followed")
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id_2_path": []}', "\xff", "[" * 100_000])
def test_without_a_table_that_can_be_read_the_files_come_in_and_parents_are_unknown(
    place, target, text
):
    (place / TABLE).write_bytes(text.encode("latin-1"))
    source = FORMAT.open(place)
    assert source.problems[0][0] == TABLE
    assert [(c.step, c.parent, c.is_first) for c in source.checkpoints] == [
        (n, None, False) for n in range(5)
    ]


def test_without_any_table_a_folder_of_numbered_files_is_known(place, target):
    (place / TABLE).unlink()
    assert FORMAT.recognises(place)
    report = import_root(place, target)
    assert report.problems == ((TABLE, "is not there: parents are unknown"),)
    assert len(imported(CheckpointRoot(target))) == 5


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["model", "optimizer", "train_dataset", "key"])
def test_a_pickle_that_calls_code_is_refused_and_named(place, target, tmp_path, where):
    path, mark = place / name_of(place, 2), tmp_path / "was-run"
    hostile = Hostile(mark)
    model = {"w": torch.ones(2)}
    torch.save({hostile: 1} if where == "key" else {"model": model, where: hostile}, path)
    report = import_root(place, target)
    assert [c.key for c in report.failed] == [path.name]
    assert "posix.mkdir" in report.failed[0].reason
    assert "--trust" in report.failed[0].reason
    assert not mark.exists()
    assert len(imported(CheckpointRoot(target))) == 4


def test_bare_pickles_under_the_name_of_a_checkpoint_are_not_run(place, target, tmp_path):
    path, mark = place / name_of(place, 2), tmp_path / "was-run"
    path.write_bytes(pickle.dumps(Hostile(mark)))
    assert [c.key for c in import_root(place, target).failed] == [path.name]
    assert not mark.exists()


def test_stand_ins_cannot_be_written_to(place, target):
    """A pickle may set attributes of what it made: a later file must not see them."""

    class _CheckpointDictKeys(str):  # noqa: SLOT000 - it has a __dict__ on purpose
        pass

    _CheckpointDictKeys.__module__ = "weightslab.components.checkpoint"
    _CheckpointDictKeys.__qualname__ = "_CheckpointDictKeys"
    import weightslab.components.checkpoint as door

    real, door._CheckpointDictKeys = door._CheckpointDictKeys, _CheckpointDictKeys
    try:
        key = _CheckpointDictKeys("model")
        key._value_ = "optimizer"
        torch.save({key: {"w": torch.ones(2)}}, place / name_of(place, 2))
    finally:
        door._CheckpointDictKeys = real
    report = import_root(place, target)
    assert [c.step for c in report.checkpoints if c.status == "imported"] == [0, 1, 3, 4]


def test_with_trust_the_enums_of_the_old_system_stay_stand_ins(tmp_path, target):
    place = copy_of("v1_root_watch", tmp_path)
    path = next(place.glob("ckpt_1_*"))
    found = torch.load(path, weights_only=False, pickle_module=_Enums) | {"train_dataset": {1j: 2}}
    torch.save(found, path)
    assert import_root(place, target, trust=True).is_complete
    _, state, _ = imported(CheckpointRoot(target))[path.name]
    assert state.models["model"].extra["tracking_mode"] in ("disabled", "train")


class _Enums:
    __name__ = "pickle"
    load = staticmethod(pickle.load)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return str if name == "TrackingMode" else super().find_class(module, name)


def test_a_checkpoint_without_weights_is_told(place, target):
    torch.save({"model": None, "learning_rate": 0.1}, place / name_of(place, 2))
    (failed,) = import_root(place, target).failed
    assert "is no state dict" in failed.reason


def test_a_model_that_changed_its_form_is_another_experiment(place, target):
    torch.save({"model": {"w": torch.ones(2)}, "learning_rate": 0.1, "batch_size": 16},
               place / name_of(place, 4))  # fmt: skip
    report = import_root(place, target)
    where = {c.step: c.exp_hash for c in report.checkpoints}
    assert where[4] not in (where[0], where[3])
    assert where[0] == where[1] == where[2]
