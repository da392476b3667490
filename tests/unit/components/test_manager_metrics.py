"""Metrics: logged line by line, read without torch, and the best checkpoint by one of them."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    LockedError,
    ReadOnlyStoreError,
)


def test_metrics_come_back_in_order_with_their_step_and_experiment(run):
    run.manager.log_metrics(1, loss=0.5, accuracy=0.25)
    run.manager.log_metrics(2, {"loss": torch.tensor(0.25), "val/loss": np.float32(0.5), "n": 7})
    records = run.manager.root.metrics()
    assert [(r.exp_hash, r.step, r.metrics) for r in records] == [
        (run.exp_hash, 1, {"loss": 0.5, "accuracy": 0.25}),
        (run.exp_hash, 2, {"loss": 0.25, "val/loss": 0.5, "n": 7}),
    ]
    assert records[0].created_at <= records[1].created_at
    assert records[0].created_at.tzinfo is not None


def test_a_line_is_plain_json(run):
    run.manager.log_metrics(3, loss=math.nan)
    text = (run.manager.root.path / "logs" / "metrics.jsonl").read_text()
    line = json.loads(text)
    assert text.endswith("}\n")
    assert (line["step"], line["exp_hash"]) == (3, run.exp_hash)
    assert line["metrics"] == {"loss": {"$float": "nan"}}
    assert sorted(line) == ["exp_hash", "metrics", "step", "time"]


def test_nan_and_infinities_come_back(run):
    run.manager.log_metrics(1, a=math.nan, b=math.inf, c=-math.inf)
    (record,) = run.manager.root.metrics()
    assert math.isnan(record.metrics["a"])
    assert (record.metrics["b"], record.metrics["c"]) == (math.inf, -math.inf)


def test_metrics_are_found_by_experiment_and_by_name(run):
    run.manager.log_metrics(1, loss=1.0, accuracy=0.5)
    other = run.manager.update_experiment_hash(config={"lr": 9})
    run.manager.log_metrics(2, loss=2.0)
    root = run.manager.root
    assert [r.step for r in root.metrics(other.exp_hash[:8])] == [2]
    assert [(r.step, r.metrics) for r in root.metrics(name="accuracy")] == [(1, {"accuracy": 0.5})]
    assert root.metrics(name="none") == []
    with pytest.raises(ExperimentNotFoundError):
        root.metrics("zzzz")
    root.delete(other.exp_hash)
    assert [r.step for r in root.metrics(other.exp_hash)] == [2]


def test_cut_and_strange_lines_are_passed_over_and_closed_off(run):
    run.manager.log_metrics(1, loss=1.0)
    run.manager.close()
    path = run.manager.root.path / "logs" / "metrics.jsonl"
    strange = [
        b"[1]",
        b'{"step": 1}',
        b'{"time": "x", "exp_hash": "a", "step": 1, "metrics": {}}',
        b'{"time": "2026-01-01T00:00:00+00:00", "exp_hash": "a", "step": 1, "metrics": {"a": "b"}}',
        b'{"time": "2026-01-01T00:00:00+00:00", "exp_hash": "a", "step": true, "metrics": {}}',
        b'{"time": "2026-01-01T00:00:00+00:00", "exp_hash": 1, "step": 1, "metrics": {}}',
    ]
    with path.open("ab") as file:
        file.write(b"\n".join(strange) + b'\n{"time": "2026-01-01T00:0')
    with CheckpointManagerV2(run.manager.root.path) as again:
        again.update_experiment_hash(run.model)
        again.log_metrics(2, loss=2.0)
        assert [r.step for r in again.root.metrics()] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "named", "error", "words"),
    [
        ((1,), {}, ValueError, "given no metrics"),
        ((1, {"loss": 1}), {"loss": 2}, TypeError, "'loss' is given twice"),
        ((1, {"loss": "low"}), {}, TypeError, "metric 'loss' is 'low'"),
        ((1, {"loss": torch.zeros(2)}), {}, TypeError, "metric 'loss'"),
        ((1, [1.0]), {}, TypeError, "metrics is a dict"),
        ((-1, {"loss": 1}), {}, ValueError, "step is an int"),
        ((1.5, {"loss": 1}), {}, TypeError, "step is an int"),
    ],
)
def test_wrong_arguments_are_refused_and_log_nothing(run, arguments, named, error, words):
    with pytest.raises(error, match=words):
        run.manager.log_metrics(*arguments, **named)
    assert run.manager.root.metrics() == []


def test_wrong_states_are_refused(run, tmp_path):
    with CheckpointManagerV2(tmp_path / "empty") as empty, pytest.raises(ExperimentNotFoundError):
        empty.log_metrics(1, loss=1.0)
    reader = CheckpointManagerV2(run.manager.root.path, read_only=True)
    with pytest.raises(ReadOnlyStoreError):
        reader.log_metrics(1, loss=1.0)
    run.manager.close()
    with pytest.raises(LockedError):
        run.manager.log_metrics(1, loss=1.0)


def test_threads_log_whole_lines(run):
    def work(number):
        for step in range(100):
            run.manager.log_metrics(step, {f"of_{number}": 1.0})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        steps = [r.step for r in run.manager.root.metrics(name=f"of_{number}")]
        assert steps == list(range(100))


def test_metrics_are_on_disk_before_the_checkpoint(run, monkeypatch):
    events = []
    log = run.manager._session.metrics_log
    monkeypatch.setattr(log, "sync", lambda: events.append("metrics"))
    put = run.manager.root.store.put
    monkeypatch.setattr(
        run.manager.root.store, "put", lambda *a, **k: events.append("put") or put(*a, **k)
    )
    run.manager.log_metrics(1, loss=1.0)
    run.save(1)
    assert events[:2] == ["metrics", "put"]


# ---------------------------------------------------------------- the best
def test_best_checkpoint_is_of_the_current_experiment(run):
    run.save(1, metrics={"loss": 3.0})
    run.save(2, metrics={"loss": 1.0, "accuracy": 0.1})
    run.save(3, metrics={"loss": 2.0, "accuracy": 0.9})
    run.save(4)
    assert run.manager.best_checkpoint("loss").name.step == 2
    assert run.manager.best_checkpoint("accuracy", "max").name.step == 3
    other = run.manager.update_experiment_hash(config={"lr": 9})
    run.save(5, metrics={"loss": 0.5})
    assert run.manager.best_checkpoint("loss").name.step == 5
    assert run.manager.best_checkpoint("loss", exp_hash=run.exp_hash[:6]).name.step == 2
    with CheckpointManagerV2(run.manager.root.path) as anew:
        assert anew.best_checkpoint("loss").name.exp_hash == other.exp_hash


def test_nan_takes_no_part_and_of_equals_the_newer_is_the_best(run):
    for step, loss in ((1, math.nan), (2, 1.0), (3, 1.0), (4, math.inf)):
        run.save(step, metrics={"loss": loss})
    assert run.manager.best_checkpoint("loss").name.step == 3
    assert run.manager.best_checkpoint("loss", mode="max").name.step == 4


def test_an_unknown_metric_names_the_known_ones(run):
    with pytest.raises(CheckpointNotFoundError, match="no checkpoints yet"):
        run.manager.best_checkpoint("loss")
    run.save(1)
    with pytest.raises(CheckpointNotFoundError, match="none of its 1 checkpoints has metrics"):
        run.manager.best_checkpoint("loss")
    run.save(2, metrics={"val_loss": math.nan, "accuracy": 0.5})
    with pytest.raises(
        CheckpointNotFoundError, match="nearest: 'val_loss'; known: 'accuracy', 'val_loss'"
    ):
        run.manager.best_checkpoint("val_los")
    with pytest.raises(CheckpointNotFoundError, match="'val_loss' is NaN in all 1 checkpoints"):
        run.manager.best_checkpoint("val_loss")
    with pytest.raises(ValueError, match="'min' or 'max'"):
        run.manager.best_checkpoint("accuracy", "best")
