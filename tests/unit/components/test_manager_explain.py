"""Explaining through the manager: from what is stored, months later, in another process."""

import json
import shutil
import subprocess
import sys

import pytest
from support.towers import TOWER, tower
from support.training import CONFIG, make

from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
from weightslab.engine.errors import ExperimentNotFoundError, ObjectNotFoundError
from weightslab.engine.repository import layout
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.values import Explanation


def test_two_experiments_are_told_apart_by_prefixes(run):
    new = run.manager.update_experiment_hash(make(hidden=6)[0], CONFIG | {"lr": 0.5}, range(97))
    told = run.manager.explain(run.exp_hash[:5], new.exp_hash[:5])
    assert isinstance(told, Explanation)
    assert str(told) == "\n".join(
        [
            f"{run.exp_hash} -> {new.exp_hash}: 5 changes",
            "  0: Linear(3 -> 5) became Linear(3 -> 6)",
            "  1: BatchNorm1d(num_features=5) became BatchNorm1d(num_features=6)",
            "  3: Linear(5 -> 2) became Linear(6 -> 2)",
            "  lr: 0.001 -> 0.5",
            "  3 samples discarded",
        ]
    )


def test_current_experiment_is_the_other_side(run):
    new = run.manager.update_experiment_hash(config=CONFIG | {"lr": 0.5}).exp_hash
    told = run.manager.explain(run.exp_hash)
    assert (told.old, told.new, [c.text for c in told]) == (run.exp_hash, new, ["lr: 0.001 -> 0.5"])
    assert str(run.manager.explain(new)) == f"{new} -> {new}: no differences"


def test_without_a_current_experiment_the_other_hash_is_asked_for(run):
    with CheckpointManagerV2(run.manager.root.path, read_only=True) as other:
        with pytest.raises(ExperimentNotFoundError, match="no experiment is current"):
            other.explain(run.exp_hash)
        assert len(other.explain(run.exp_hash, run.exp_hash)) == 0


def test_unknown_and_damaged_experiments_are_named(run):
    with pytest.raises(ExperimentNotFoundError, match="no experiment 'zz'"):
        run.manager.explain("zz")
    new = run.manager.update_experiment_hash(config={"lr": 1}).exp_hash
    run.manager.root.path.joinpath(layout.experiment_key(run.exp_hash)).write_bytes(b"x")
    with pytest.raises(ObjectNotFoundError, match=f"{run.exp_hash} cannot be compared"):
        run.manager.explain(run.exp_hash, new)


def test_file_that_is_gone_is_named_and_the_rest_is_told(run):
    new = run.manager.update_experiment_hash(make(hidden=6)[0], CONFIG | {"lr": 0.5}).exp_hash
    run.manager.root.path.joinpath(layout.architecture_key(run.exp_hash)).unlink()
    told = run.manager.explain(run.exp_hash, new)
    assert [c.component for c in told] == ["model", "config"]
    assert told.changes[0].text.startswith("model changed (wl1:sha256:")
    assert told.problems[0].startswith(f"model of {run.exp_hash} cannot be read")
    assert "  not in the identity:\n    model of" in str(told)


def test_excluded_keys_and_other_versions_stand_apart(tmp_path):
    with CheckpointManagerV2(tmp_path, config_exclude=["dir"]) as manager:
        old = manager.update_experiment_hash(config={"lr": 1, "dir": "/a"}).exp_hash
        new = manager.update_experiment_hash(config={"lr": 2, "dir": "/b"}).exp_hash
        told = manager.explain(old, new)
    assert [c.text for c in told] == ["lr: 1 -> 2"]
    assert [c.text for c in told.not_counted] == ["dir: '/a' -> '/b' (excluded)"]


def test_key_that_is_excluded_in_one_experiment_alone_is_a_change(tmp_path):
    hashes = []
    for exclude in ((), ("dir",)):
        with CheckpointManagerV2(tmp_path, config_exclude=exclude) as manager:
            hashes.append(manager.update_experiment_hash(config={"lr": 1, "dir": "/a"}).exp_hash)
    told = CheckpointRoot(tmp_path).explain(*hashes)
    assert [c.text for c in told] == ["dir removed (was '/a')"]
    assert [c.text for c in told.not_counted] == [
        f"the config key dir is excluded in {hashes[1]} alone"
    ]


@pytest.mark.slow
def test_code_of_experiments_is_told_without_the_code_and_without_torch(tmp_path):
    """The sources are deleted, the root is moved, and torch cannot be imported."""
    sources, hashes = tmp_path / "sources", []
    sources.mkdir()
    for name, text in (("a", TOWER), ("b", TOWER.replace("softmax(-1)", "softmax(-2)"))):
        names = {"__name__": name}
        path = sources / f"{name}.py"
        path.write_text(text)
        exec(compile(text, str(path), "exec"), names)
        with CheckpointManagerV2(tmp_path / "root") as manager:
            hashes.append(manager.update_experiment_hash(names["Net"]()).exp_hash)
    shutil.rmtree(sources)
    (tmp_path / "root").rename(tmp_path / "moved")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from weightslab.engine.root import CheckpointRoot\n"
        f"told = CheckpointRoot({str(tmp_path / 'moved')!r}, read_only=True).explain(*{hashes!r})\n"
        "print(told)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[1:] == [
        "  forward of Attention changed (3 modules)",
        "    --- Attention.forward (old)",
        "    +++ Attention.forward (new)",
        "    @@ -1,2 +1,2 @@",
        "     def forward(self, x):",
        "    -    return self.q(x).softmax(-1) * self.v(x) / self.heads",
        "    +    return self.q(x).softmax(-2) * self.v(x) / self.heads",
        "",
    ]


def test_what_is_in_the_identity_and_beside_it_is_stored_and_shown(tmp_path):
    names = {}
    exec("import torch\nclass Net(torch.nn.Module):\n    def forward(self, x): return x", names)
    with CheckpointManagerV2(tmp_path, config_exclude=["dir"]) as manager:
        exp_hash = manager.update_experiment_hash(names["Net"](), {"dir": "/a"}).exp_hash
        shown = manager.get_checkpoint_info(exp_hash)["identity"]
        other = manager.update_experiment_hash(config={"dir": "/a", "lr": 1}).exp_hash
        beside = [c.text for c in manager.explain(exp_hash, other).not_counted]
    stored = json.loads((tmp_path / "checkpoints" / exp_hash / "experiment.json").read_text())
    assert (shown["scheme"], shown["facets"], shown["weak"]) == (
        "wl1",
        ["model.trainable"],
        ["Net.forward"],
    )
    assert shown["excluded"][-1] == "dir"
    assert {"python", "torch", "numpy"} <= shown["environment"].keys()
    for key in ("scheme", "facets", "weak", "excluded", "environment"):
        assert shown[key] == stored[key]
    assert shown["digests"]["model"] == stored["identity"]["model"]
    assert beside == ["weak mark (byte-code, or values that cannot be read): Net.forward"]


def test_generator_explains_like_the_manager(tmp_path):
    models = [
        make_net(tmp_path / f"{n}.py", text)
        for n, text in enumerate((TOWER, TOWER.replace("GAIN = 2.0", "GAIN = 3.0")))
    ]
    generator = ExperimentHashGenerator(config_exclude=["dir"])
    for at, model in enumerate(models):
        generator.generate_hash(model, {"lr": 1, "dir": at})
    told = generator.explain()
    assert [c.text for c in told] == ["GAIN: 2.0 -> 3.0 (used by forward of Block)"]
    assert [c.text for c in told.not_counted] == ["dir: 0 -> 1 (excluded)"]


def make_net(path, text):
    """Return the model of a source."""
    path.write_text(text)
    names = {"__name__": "towers"}
    exec(compile(text, str(path), "exec"), names)
    return names["Net"]()


def test_constants_are_stored_however_often_a_class_is_described(tmp_path):
    documents = [tower(tmp_path / "same.py") for _ in range(2)]
    assert documents[0] == documents[1]
    values = documents[0]["values"][""]
    assert values["Block.forward"]["constants"]["GAIN"] == 2.0
    assert values["scale"]["defaults"] == {"k": 3}
    assert values["norm"]["closure"] == {"eps": 0.1}
