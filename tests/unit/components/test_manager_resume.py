"""`manager.resume`: what it takes, what it says, and what it refuses."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace

import pytest
import torch
from support.training import CONFIG, flip, make, state_of, train

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2, FixedInterval, ResumableSampler
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    IntegrityError,
    LockedError,
    ObjectNotFoundError,
    StateMismatchError,
)
from weightslab.engine.repository.thinning import thin_checkpoint


@pytest.fixture
def open_run(tmp_path):
    """Open a manager over a small model, as a new process would; all are closed at the end."""
    opened = []

    def open_one(seed=0, hidden=5, config=CONFIG, uids=None, **options):
        model, optimizer = make(hidden, seed)
        manager = CheckpointManagerV2(tmp_path / "root", **options)
        opened.append(manager)
        manager.update_experiment_hash(model, config, range(100) if uids is None else uids)

        def go(*steps, save=True, **more):
            for step in steps:
                train(model, optimizer, seed=step)
                if save:
                    manager.save_model_checkpoint(model, step=step, optimizer=optimizer, **more)

        def resume(*args, **options):
            return manager.resume(*args or [model], optimizer=optimizer, **options)

        return SimpleNamespace(
            manager=manager,
            model=model,
            optimizer=optimizer,
            exp_hash=manager.current_hash,
            go=go,
            resume=resume,
            state=lambda: state_of(model, optimizer),
        )

    yield open_one
    for manager in opened:
        manager.close()


def unchanged(run, error, *, match, **options):
    """Resume, expect an error, and that nothing was changed."""
    before, chance = run.state(), torch.get_rng_state()
    with pytest.raises(error, match=match) as caught:
        run.resume(**options)
    assert run.state() == before
    assert torch.equal(torch.get_rng_state(), chance)
    return caught.value


# ---------------------------------------------------------------- where nothing is there
def test_auto_begins_anew_in_an_empty_root(open_run, caplog):
    run = open_run()
    with caplog.at_level(logging.WARNING):
        found = run.resume()
    assert (found.step, found.epoch, found.samples_seen, found.batch) == (0, 0, 0, None)
    assert (found.resumed, bool(found), found.exp_hash) == (False, False, run.exp_hash)
    assert str(found) == f"fresh start: experiment {run.exp_hash} has no checkpoints"
    assert list(range(found.step + 1, 4)) == [1, 2, 3]
    assert caplog.records == []


@pytest.mark.parametrize("resume", ["latest", "best", 7, "hash"])
def test_everything_else_is_an_error_where_nothing_is_there(open_run, resume):
    run = open_run()
    wanted = run.exp_hash[:6] if resume == "hash" else resume
    unchanged(
        run, CheckpointNotFoundError, match="has no checkpoints", resume=wanted, metric="loss"
    )


def test_never_looks_at_nothing(open_run):
    open_run().go(1)
    found = open_run().resume(resume="never")
    assert (found.step, found.reason) == (0, "fresh start: resume='never'")


def test_without_an_experiment_there_is_nothing_to_resume(manager):
    model, optimizer = make()
    with pytest.raises(ExperimentNotFoundError, match="cannot resume: no experiment is current"):
        manager.resume(model, optimizer=optimizer)


def test_a_fresh_start_needs_a_model_too_and_remembers_what_it_is_given(open_run):
    run = open_run(save_policy=FixedInterval(1))
    run.resume()
    run.go(1, save=False)
    run.manager.step(1)  # without naming them again
    training = run.manager.root.manifest(run.manager.root.latest()).state["training"]
    assert list(training["optimizer"]) == ["optimizer"]
    other = CheckpointManagerV2(run.manager.root.path)
    other.update_experiment_hash(config={})
    with pytest.raises(ObjectNotFoundError, match="no model"):
        other.resume()
    other.close()


# ---------------------------------------------------------------- what is taken
def test_auto_and_latest_take_what_was_committed_last(open_run):
    first = open_run()
    first.go(1, 5)
    first.go(3, metrics={"loss": 0.5}, metadata={"a": 1}, epoch=2, samples_seen=12)  # rewound
    saved = first.state()
    for resume in ("auto", "latest", first.exp_hash[:5]):
        run = open_run(seed=4)
        found = run.resume(resume=resume)
        assert (found.step, found.epoch, found.samples_seen) == (3, 2, 12)
        assert (found.metrics, found.metadata, found.revision) == ({"loss": 0.5}, {"a": 1}, 1)
        assert found.path.name == f"{first.exp_hash}_step_000003.safetensors"
        assert found.reason == f"resumed {first.exp_hash}_step_000003"
        assert found
        assert found.report.random_restored
        assert run.state() == saved


def test_a_step_and_the_best_are_taken(open_run):
    first = open_run()
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.7)):
        first.go(step, metrics={"loss": loss})
    assert open_run().resume(resume=1).step == 1
    assert open_run().resume(resume="best", metric="loss").step == 2
    assert open_run().resume(resume="best", metric="loss", mode="max").step == 3
    unchanged(open_run(), CheckpointNotFoundError, match="nearest: 1, 2, 3", resume=9)


def test_the_random_state_goes_on_unless_that_is_not_wanted(open_run):
    open_run().go(1)
    expected = random.random(), torch.rand(3)
    run = open_run()
    run.resume()
    assert random.random() == expected[0]
    assert torch.equal(torch.rand(3), expected[1])
    before = torch.get_rng_state()
    assert not run.resume(load_random=False).report.random_restored
    assert torch.equal(torch.get_rng_state(), before)


def test_the_place_of_a_tracked_sampler_is_told(open_run):
    def sampler(batch_size):
        return ResumableSampler(20, batch_size=batch_size, seed=1)

    first, order = open_run(), sampler(4)
    first.manager.track(order=order)
    assert first.resume().position == 0
    for _, _ in zip(range(7), [*order, *order], strict=False):
        pass
    batches = iter(order)
    next(batches)
    first.go(8, epoch=99)
    run, again = open_run(), sampler(3)
    run.manager.track(order=again)
    found = run.resume()
    assert (found.epoch, found.position, found.samples_seen) == (2, 4, 44)
    assert found.batch == 2  # 4 samples are more than one batch of 3


def test_a_damaged_checkpoint_is_passed_over(open_run, caplog):
    first = open_run()
    first.go(1, 2)
    path = first.manager.root.path / "checkpoints" / first.exp_hash / "model"
    flip(path / f"{first.exp_hash}_step_000002.training.safetensors")
    found = open_run().resume()
    assert found.step == 1
    assert [(s["step"], s["revision"]) for s in found.skipped] == [(2, 1)]
    assert "skipping the damaged checkpoint" in caplog.text
    flip(path / f"{first.exp_hash}_step_000001.json")
    unchanged(open_run(), IntegrityError, match=r"all 2 checkpoints of .* are damaged")


def test_objects_of_the_ledger_are_resumed(open_run):
    first = open_run()
    scheduler = torch.optim.lr_scheduler.StepLR(first.optimizer, 1)
    ledgers.register_optimizer("main", first.optimizer)
    ledgers.register_scheduler("main", scheduler)
    first.go(1, save=False)
    scheduler.step()
    first.manager.save_model_checkpoint(first.model, step=1)
    run = open_run(seed=3)
    scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, 1)
    ledgers.register_optimizer("main", run.optimizer)
    ledgers.register_scheduler("main", scheduler)
    assert run.manager.resume(run.model).step == 1
    assert scheduler.last_epoch == 1
    assert run.state() == first.state()


# ---------------------------------------------------------------- weights without training state
def test_auto_passes_over_what_has_no_training_state_and_says_so(open_run, caplog):
    first = open_run()
    first.go(1)
    saved = first.state()
    first.go(2, save_optimizer=False, epoch=1)
    run = open_run(seed=3)
    found = run.resume()
    assert found.step == 1
    assert run.state() == saved
    assert [s["reason"] for s in found.skipped] == [
        "it holds the weights alone (save_optimizer=False)"
    ]
    assert "passing over" in caplog.text


def test_a_thinned_checkpoint_is_passed_over_and_refused_by_name(open_run):
    first = open_run()
    first.go(1, 2)
    root = first.manager.root
    name = root.get_checkpoint(first.exp_hash, 2).name
    thin_checkpoint(root.store, root.catalog, name, clock=root.clock)
    found = open_run().resume()
    assert found.step == 1
    assert [(s["step"], s["revision"], s["reason"]) for s in found.skipped] == [
        (2, 2, "its optimizer state was dropped by thinning")
    ]
    error = unchanged(open_run(), StateMismatchError, match="was dropped by thinning", resume=2)
    assert "load_checkpoint(2, load_optimizer=False)" in str(error)


def test_where_all_hold_weights_alone_that_is_an_error(open_run):
    open_run().go(1, save_optimizer=False)
    unchanged(open_run(), StateMismatchError, match=r"no checkpoint of .* can be resumed: step 1")


# ---------------------------------------------------------------- another experiment
OTHER = {**CONFIG, "lr": 0.002}


def test_a_changed_config_begins_anew_and_says_how_to_go_on(open_run, caplog):
    first = open_run()
    first.go(1)
    run = open_run(config=OTHER)
    before = run.state()
    found = run.resume()
    assert not found
    assert (found.step, found.changed_from) == (0, first.exp_hash)
    assert [str(change) for change in found.changes] == ["lr: 0.001 -> 0.002"]
    assert run.state() == before
    for words in (
        f"experiment {run.exp_hash} has no checkpoints. Nearest: {first.exp_hash} (lr: 0.001 -> ",
        "newest step 1; resume(..., on_change='continue') goes on from there",
        "config_exclude",
    ):
        assert words in found.reason
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_latest_and_on_change_error_refuse_to_begin_anew(open_run):
    open_run().go(1)
    run = open_run(config=OTHER)
    for options in ({"resume": "latest"}, {"on_change": "error"}):
        error = unchanged(run, CheckpointNotFoundError, match="lr: 0.001 -> 0.002", **options)
        assert "on_change='continue'" in str(error)
    assert not open_run(config={"alone": 1}, hidden=5).resume(resume="never")


def test_on_change_error_is_none_where_nothing_changed(open_run):
    assert not open_run().resume(on_change="error")


def test_continue_goes_on_as_a_branch_with_an_exact_parent(open_run, caplog):
    first = open_run()
    first.go(1, 2)
    run = open_run(seed=3, config=OTHER)
    found = run.resume(on_change="continue")
    assert (found.step, found.exp_hash, found.changed_from) == (2, first.exp_hash, first.exp_hash)
    assert [str(change) for change in found.changes] == ["lr: 0.001 -> 0.002"]
    assert f"continued from step 2 of {first.exp_hash} (lr: 0.001 -> 0.002): a new branch" in (
        caplog.text
    )
    assert run.state() == first.state()
    run.go(3)
    parent = run.manager.root.latest(run.exp_hash).parent
    assert (parent.exp_hash, parent.step, parent.via, parent.exact) == (first.exp_hash, 2, (), True)
    again = open_run(config=OTHER).resume(on_change="continue")  # has checkpoints of its own now
    assert (again.step, again.exp_hash, again.changes) == (3, run.exp_hash, ())


def test_the_options_of_the_optimizer_are_those_of_the_checkpoint_and_that_is_said(
    open_run, caplog
):
    first = open_run()
    first.go(1)
    run = open_run(config=OTHER)
    run.optimizer.param_groups[0]["lr"] = 0.5
    run.resume(on_change="continue")
    assert run.optimizer.param_groups[0]["lr"] == 0.01
    assert "the optimizer goes on as it was saved (lr 0.5 -> 0.01)" in caplog.text


def test_the_origin_is_followed_through_experiments_without_checkpoints(open_run):
    first = open_run()
    first.go(1)
    decoy = open_run(config={**CONFIG, "lr": 9.0, "a": 1, "b": 2}, uids=range(7))
    decoy.go(1)
    chain = open_run()
    for number in range(3):
        chain.manager.update_experiment_hash(config={**CONFIG, "a": 1, "b": 2 + number, "lr": 9.0})
    found = chain.resume(on_change="continue")
    assert found.exp_hash == first.exp_hash


def test_the_nearest_is_taken_where_the_origin_is_gone(open_run):
    first = open_run()
    first.go(1)
    gone = open_run(config=OTHER)
    run = open_run(config={**OTHER, "x": 1})
    gone.manager.root.delete(gone.exp_hash)
    assert run.resume(on_change="continue").exp_hash == first.exp_hash


def test_a_hash_names_an_experiment_to_branch_from(open_run):
    first = open_run()
    first.go(1)
    other = open_run(config=OTHER)
    other.go(5)
    run = open_run(config=OTHER)
    found = run.resume(resume=first.exp_hash[:7])
    assert (found.step, found.changed_from) == (1, first.exp_hash)
    error = unchanged(run, ExperimentNotFoundError, match="no experiment '000'", resume="000")
    assert "a step is an int: resume=0" in str(error)


def test_a_changed_architecture_cannot_be_continued_and_nothing_is_changed(open_run):
    open_run().go(1)
    unchanged(open_run(hidden=6), StateMismatchError, match="other shapes", on_change="continue")


def test_samples_that_changed_are_refused_by_the_sampler_unless_it_accepts_them(open_run):
    def tracked(uids, **options):
        run = open_run(uids=uids)
        run.manager.track(order=ResumableSampler(uids, batch_size=4, **options))
        return run

    tracked(range(100)).go(1)
    kept = [uid for uid in range(100) if uid not in (3, 4)]
    error = unchanged(
        tracked(kept), StateMismatchError, match="number of samples", on_change="continue"
    )
    assert "accept=('samples',)" in str(error)
    found = tracked(kept, accept=("samples",)).resume(on_change="continue")
    assert [str(change) for change in found.changes] == ["2 samples discarded"]


# ---------------------------------------------------------------- what does not fit
def test_another_kind_of_optimizer_is_refused(open_run):
    open_run().go(1)
    run = open_run(seed=3)
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1, momentum=0.9)
    before = state_of(run.model, run.optimizer)
    with pytest.raises(StateMismatchError, match="AdamW"):
        run.manager.resume(run.model, optimizer=run.optimizer)
    assert state_of(run.model, run.optimizer) == before


def test_other_parameter_groups_are_refused(open_run):
    open_run().go(1)
    run = open_run(seed=3)
    layers = list(run.model)
    groups = [{"params": layers[0].parameters()}, {"params": layers[3].parameters()}]
    with pytest.raises(StateMismatchError, match="group"):
        run.manager.resume(run.model, optimizer=torch.optim.AdamW(groups))


def test_an_optimizer_on_one_side_alone_is_refused(open_run):
    first = open_run()
    first.go(1)
    with pytest.raises(StateMismatchError, match="no optimizer was passed or registered"):
        open_run().manager.resume(first.model)
    first.manager.save_model_checkpoint(first.model, step=2)
    unchanged(open_run(), StateMismatchError, match="was saved without an optimizer")


def test_a_tracked_object_on_one_side_alone_is_refused(open_run):
    first = open_run()
    first.manager.track(shuffle=random.Random(1))
    first.go(1)
    unchanged(open_run(), StateMismatchError, match="shuffle")
    run = open_run()
    run.manager.track(shuffle=random.Random(2), more=random.Random(3))
    unchanged(run, StateMismatchError, match="more")
    assert run.resume(strict=False).report.tracked == ("shuffle",)


def test_another_number_of_processes_is_refused_unless_the_random_state_is_left_out(
    open_run, monkeypatch
):
    open_run().go(1)
    run = open_run()
    for module in ("loading", "session"):
        monkeypatch.setattr(f"weightslab.components.{module}.world_of", lambda: (0, 2))
    unchanged(run, StateMismatchError, match="world size of 1 and cannot go on with 2")
    assert run.resume(load_random=False).step == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"resume": ""}, TypeError, "resume is 'auto'"),
        ({"resume": True}, TypeError, "resume is 'auto'"),
        ({"resume": None}, TypeError, "resume is 'auto'"),
        ({"resume": -1}, ValueError, "a step to resume is an int >= 0"),
        ({"resume": "best"}, ValueError, "needs metric="),
        ({"mode": "least"}, ValueError, "mode is 'min' or 'max'"),
        ({"on_change": "go"}, ValueError, "on_change is 'fresh', 'continue' or 'error'"),
        ({"resume_verification": 3}, TypeError, r"\(train_step, k\)"),
        ({"resume_verification": (3, 3)}, TypeError, r"\(train_step, k\)"),
        ({"resume_verification": (print, True)}, TypeError, "k of"),
        ({"resume_verification": (print, 0)}, ValueError, "k of"),
        ({"resume_verification": (print, 1), "load_random": False}, ValueError, "load_random=True"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(open_run, options, error, words):
    unchanged(open_run(), error, match=words, **options)


def test_a_closed_manager_resumes_nothing(open_run):
    run = open_run()
    run.manager.close()
    unchanged(run, LockedError, match="closed")
