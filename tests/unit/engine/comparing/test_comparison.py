"""`root.compare`: what differs, on how many sides so ever, with damaged parts told and left out."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.comparing.comparison import compare
from weightslab.engine.comparing.samples import diff_data
from weightslab.engine.comparing.tables import config_table
from weightslab.engine.errors import ExperimentNotFoundError, ObjectNotFoundError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.root import CheckpointRoot


def net(last):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, last))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root: A with steps 1 and 2, B with another last layer, config and samples."""
    path = tmp_path_factory.mktemp("compared") / "root"
    model = net(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with CheckpointManagerV2(path) as manager:
        config = {"lr": 0.1, "deep": {"a": 1, "<b>": "x\x1b[31m"}, "data": {"dir": "here"}}
        first = manager.update_experiment_hash(model, config, range(10)).exp_hash
        for step in (1, 2):
            model[2](model[0](torch.ones(1, 4))).sum().backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 0.1 / step
            manager.save_model_checkpoint(
                model, step=step, optimizer=optimizer, metrics={"loss": 1 / step}
            )
        other = net(3)
        config = {"lr": 0.2, "deep": {"a": 1}, "data": {"dir": "there"}}
        second = manager.update_experiment_hash(other, config, range(2, 13)).exp_hash
        manager.save_model_checkpoint(other, step=7, save_optimizer=False, metrics={"loss": 9.0})
    return path, first, second


@pytest.fixture
def copied(made, tmp_path):
    """The same, to be damaged."""
    path, first, second = made
    shutil.copytree(path, tmp_path / "root")
    return CheckpointRoot(tmp_path / "root", read_only=True), first, second


@pytest.fixture(scope="module")
def root(made):
    return CheckpointRoot(made[0], read_only=True)


def test_two_experiments_are_told_apart_in_every_part(root, made):
    _, first, second = made
    found = root.compare(first[:6], second[:6])
    assert [side.label for side in found.sides] == [first[:8], second[:8]]
    assert [str(c) for c in found.architecture[0].changes] == [
        "2: Linear(8 -> 2) became Linear(8 -> 3)"
    ]
    assert [row.path for row in found.config] == ["data.dir", "deep.<b>", "lr"]
    assert found.config[1].present == (True, False)
    (data,) = found.data
    assert (list(data.added), list(data.removed)) == ([10, 11, 12], [0, 1])
    assert (data.num_old, data.num_new) == (10, 11)
    assert found.metrics[0].values == (0.5, 9.0)
    assert (found.weights, found.problems, found.environment) == ((), (), ())


def test_two_steps_of_one_experiment_differ_in_weights_and_optimizer_alone(root, made):
    _, first, _ = made
    found = root.compare(f"{first}@1", f"{first}@2", weights=True)
    assert (found.architecture, found.config, found.data) == ((), (), ())
    rows = {row.path: row.values for row in found.optimizers}
    assert rows == {"optimizer.groups[0].lr": (0.1, 0.05), "optimizer.step": (1, 2)}
    (weights,) = found.weights
    assert [(m.optimizer, m.key, m.num_tensors) for m in weights.moments] == [
        ("optimizer", "exp_avg", 4),
        ("optimizer", "exp_avg_sq", 4),
    ]


def test_numbers_of_tensors_and_modules_are_those_of_torch(root, made):
    _, first, _ = made
    (weights,) = root.compare(f"{first}@1", f"{first}@2", weights=True).weights
    old, new = (root.tensors(first, step) for step in (1, 2))
    old, new = ({k: v for k, v in side.items() if k[0] in "02"} for side in (old, new))
    told = {tensor.name: tensor.numbers for tensor in weights.tensors}
    assert set(told) == set(old)
    for name, numbers in told.items():
        a, b = old[name].double(), new[name].double()
        assert numbers.l2_difference == pytest.approx((b - a).norm().item(), rel=1e-5)
        assert numbers.max_abs == pytest.approx((b - a).abs().max().item(), rel=1e-5)
        assert numbers.fraction_changed == (a != b).double().mean().item()
    whole = {module.path: module for module in weights.modules}[""]
    a, b = (torch.cat([side[k].double().ravel() for k in sorted(old)]) for side in (old, new))
    assert whole.num_tensors == whole.num_changed == 4
    assert whole.numbers.cosine == pytest.approx((a @ b / a.norm() / b.norm()).item(), rel=1e-6)
    assert whole.numbers.relative == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-5)


def test_other_shapes_are_told_with_the_norms_of_both(root, made):
    _, first, second = made
    (weights,) = root.compare(first, second, weights=True).weights
    kinds = {t.name: (t.kind, t.shape_old, t.shape_new) for t in weights.tensors}
    assert kinds["2.weight"] == ("reshaped", (2, 8), (3, 8))
    told = next(t for t in weights.tensors if t.name == "2.weight").numbers
    assert told.l2_old > 0 < told.l2_new
    assert told.l2_difference is None is told.cosine


def test_equal_checkpoints_are_not_read(root, made):
    _, first, _ = made
    found = root.compare(f"{first}@2", first, weights=True)
    assert (found.weights[0].num_same, found.weights[0].read_bytes) == (4, 0)
    assert str(found).splitlines()[1:] == ["metrics", "  loss: 0.5 -> 0.5"]


def test_three_sides_make_a_table_and_are_held_against_the_first(root, made):
    _, first, second = made
    found = root.compare(first, second, f"{first}@1", weights=True)
    assert {row.path: row.values for row in found.config}["lr"] == (0.1, 0.2, 0.1)
    assert [(d.old, d.new) for d in found.weights] == [(0, 1), (0, 2)]
    assert [d.new for d in found.data] == [1]
    assert found.metrics[0].values == (0.5, 9.0, 1.0)


def test_only_tensors_that_fit_the_pattern_are_compared(root, made):
    _, first, _ = made
    sides = f"{first}@1", f"{first}@2"
    (weights,) = root.compare(*sides, weights=True, tensors="0.*").weights
    assert {t.name for t in weights.tensors} == {"0.weight", "0.bias"}
    assert weights.moments == ()
    with pytest.raises(ObjectNotFoundError, match=r"no tensor of .* fits 'nothing.*'"):
        root.compare(*sides, weights=True, tensors="nothing.*")


def test_the_report_is_plain_json_and_a_screen_of_text(root, made):
    _, first, second = made
    found = root.compare(first, second, weights=True)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told == found.to_dict()
    assert told["data"][0]["added"] == [10, 11, 12]
    lines = str(found).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert str(found).replace("\n", "").isprintable()


def test_markup_and_control_characters_are_shown_inert(root, made):
    _, first, second = made
    page = root.compare(first, second)._repr_html_()
    assert "deep.&lt;b&gt;" in page
    assert "<b>" not in page
    assert "\x1b" not in page


def test_references_that_are_none_are_refused(root, made):
    with pytest.raises(ValueError, match="two references or more, not 1"):
        root.compare(made[1])
    with pytest.raises(ExperimentNotFoundError):
        root.compare(made[1], "0000")
    with pytest.raises(ValueError, match="no checkpoint of"):
        root.compare(made[1], f"{made[1]}@never")


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model/{h}_architecture.json", "architecture"),
        ("hp/{h}_config.yaml", "config"),
        ("data/{h}_samples.h5", "data"),
    ],
)
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_part_that_cannot_be_read_is_told_and_the_rest_compared(copied, file, part, how):
    root, first, second = copied
    path = root.path / "checkpoints" / second / file.format(h=second)
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    found = root.compare(first, second, weights=True)
    assert any("cannot be read" in problem for problem in found.problems)
    whole = CheckpointRoot.compare(root, first, first)
    assert whole.problems == ()
    for name in {"architecture", "config", "data"} - {part}:
        assert getattr(found, name), name
    assert found.weights[0].tensors


def test_a_flipped_bit_in_a_tensor_is_told_and_no_number_of_it(copied):
    root, first, _ = copied
    model = root.path / "checkpoints" / first / "model"
    record = root.manifest(root.at(f"{first}@2")).tensors["model/2.weight"]
    path = model / record.file
    data = bytearray(path.read_bytes())
    data[record.offset + 3] ^= 1
    path.write_bytes(data)
    found = root.compare(f"{first}@1", f"{first}@2", weights=True)
    (problem,) = found.problems
    assert "2.weight cannot be compared" in problem
    told = {t.name: (t.kind, t.numbers is None) for t in found.weights[0].tensors}
    assert told["2.weight"] == ("unreadable", True)
    assert told["0.weight"] == ("changed", False)


def test_a_missing_or_cut_file_leaves_the_other_files(copied):
    root, first, _ = copied
    model = root.path / "checkpoints" / first / "model"
    (model / f"{first}_step_000002.training.safetensors").unlink()
    path = model / f"{first}_step_000001.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    found = root.compare(f"{first}@1", f"{first}@2", weights=True)
    assert any("instead of" in problem for problem in found.problems)
    assert any("the optimizers of" in problem for problem in found.problems)
    assert {t.kind for t in found.weights[0].tensors} == {"unreadable"}
    assert len(found.metrics) == 1


def test_a_damaged_record_or_manifest_leaves_what_can_be_compared(copied):
    root, first, second = copied
    (root.path / "checkpoints" / second / "experiment.json").write_text("{}")
    found = root.compare(first, second, weights=True)
    assert any("experiment" in problem for problem in found.problems)
    assert found.metrics[0].values == (0.5, 9.0)
    assert found.weights[0].tensors
    manifest = root.path / "checkpoints" / first / "model" / f"{first}_step_000001.json"
    manifest.write_text("{}")
    found = root.compare(f"{first}@1", f"{first}@2", weights=True)
    assert any("the checkpoint of" in problem for problem in found.problems)
    assert found.metrics[0].values == (None, 0.5)
    assert found.metrics[0].present == (None, True)
    assert "(unreadable)" in str(found)


def test_nan_that_appears_is_told(tmp_path):
    model = net(2)
    with CheckpointManagerV2(tmp_path) as manager:
        exp_hash = manager.update_experiment_hash(model, {}).exp_hash
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        with torch.no_grad():
            model[0].weight[0, :2] = torch.tensor([float("nan"), float("inf")])
        manager.save_model_checkpoint(model, step=2, save_optimizer=False)
        found = manager.root.compare(f"{exp_hash}@1", f"{exp_hash}@2", weights=True)
    assert found.weights[0].num_same == 3
    (tensor,) = found.weights[0].tensors
    assert (tensor.numbers.num_nan_new, tensor.numbers.num_inf_new) == (1, 1)
    assert tensor.numbers.l2_difference == 0
    assert "0.weight: 1 NaN, 1 Inf appeared" in str(found)


def test_a_renamed_layer_is_compared_under_its_new_name(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.add_module(name, torch.nn.Linear(3, 3))
            self.tail = torch.nn.Linear(5, 5)

    torch.manual_seed(0)
    old, new = Net("first"), Net("renamed")
    new.renamed.load_state_dict(old.first.state_dict())
    with torch.no_grad():
        new.renamed.bias += 1
    with CheckpointManagerV2(tmp_path) as manager:
        hashes = []
        for model in (old, new):
            hashes.append(manager.update_experiment_hash(model, {}).exp_hash)
            manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        (weights,) = manager.root.compare(*hashes, weights=True, tensors=("*t.*", "ren*")).weights
    told = {t.name: (t.kind, t.old_name) for t in weights.tensors}
    assert told == {
        "renamed.weight": ("moved", "first.weight"),
        "renamed.bias": ("changed", "first.bias"),
    }


def test_labels_are_counted_where_they_are_part_of_the_samples():
    labels = {uid: "cat" if uid < 5 else "dog" for uid in range(10)}
    old = SampleSet.from_uids(range(8), labels={k: labels[k] for k in range(8)})
    changed = {k: labels[k] for k in range(2, 10)} | {7: "cat"}
    new = SampleSet.from_uids(range(2, 10), labels=changed)
    found = diff_data(old, new, places=(0, 1))
    assert found.by_label == {"labels": {"cat": (2, 0), "dog": (0, 2)}}
    assert found.relabelled == {"labels": 1}


def test_a_table_of_many_configs_has_the_outermost_differences():
    configs = [
        {"a": {"b": 1, "c": 2}, "l": [1]},
        {"a": {"b": 1, "c": 3}, "l": [1]},
        {"a": 5, "l": [1]},
    ]
    (row,) = config_table(configs, [()] * 3)
    assert (row.path, row.values[2]) == ("a", 5)
    rows = config_table([configs[0], None, configs[1]], [()] * 3)
    assert [(r.path, r.values, r.present) for r in rows] == [
        ("a.c", (2, None, 3), (True, None, True))
    ]


def test_comparing_weights_does_not_import_torch(made):
    path, first, _ = made
    code = (
        "import sys\nfrom weightslab.engine.root import CheckpointRoot\n"
        f"root = CheckpointRoot({str(path)!r}, read_only=True)\n"
        f"assert root.compare('{first}@1', '{first}@2', weights=True).weights[0].tensors\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compare_is_a_verb_of_the_root():
    assert CheckpointRoot.compare is compare
