"""`resume_verification`: steps taken again come out as recorded, or the first that does not is told."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from support.training import bits, files_of, flip, make, state_of

from weightslab.components import CheckpointManagerV2, ResumableSampler, SpecificSteps
from weightslab.engine.errors import ReplayMismatchError

NUM_SAMPLES = 12
TABLE = torch.randn(NUM_SAMPLES, 3, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def open_run(tmp_path):
    """Open a training with a sampler, as a new process would; all are closed at the end."""
    opened = []

    def open_one(seed=0, saved=(3, 8), config=None):
        model, optimizer = make(seed=seed)
        sampler = ResumableSampler(NUM_SAMPLES, batch_size=4, seed=1)
        manager = CheckpointManagerV2(tmp_path / "root", save_policy=SpecificSteps(saved))
        opened.append(manager)
        manager.update_experiment_hash(model, config or {}, sampler.samples)
        manager.track(sampler=sampler)
        run = SimpleNamespace(manager=manager, model=model, optimizer=optimizer, sampler=sampler)

        def loop(found, spoil=lambda step, batch: batch, told=True, last=10):
            step = found.step
            while True:
                for indices in sampler:
                    step += 1
                    batch = spoil(step, TABLE[indices] + 0.1 * torch.randn(len(indices), 3))
                    loss = model(batch).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if told:
                        manager.step(
                            step, {"loss": loss.detach()}, model=model, optimizer=optimizer
                        )
                        manager.log_metrics(step, loss=float(loss.detach()))
                    if step >= 8 and not told:
                        manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
                    yield step
                    if step == last:
                        return

        run.loop = loop
        run.resume = lambda **more: manager.resume(model, optimizer=optimizer, **more)
        run.state = lambda: (
            *state_of(model, optimizer),
            sampler.state_dict(),
            bits(torch.get_rng_state()),
            random.getstate(),
        )
        return run

    yield open_one
    for manager in opened:
        manager.close()


@pytest.fixture
def trained(open_run):
    """Train 10 steps, with checkpoints at 3 and 8; returns the state at 8."""
    run, states = open_run(), {}
    for step in run.loop(run.resume()):
        states[step] = run.state()
    run.manager.close()
    return states[8]


@pytest.mark.parametrize(
    ("steps", "reached", "compared", "whole"), [(2, 5, 2, False), (5, 8, 5, True), (99, 8, 5, True)]
)
def test_steps_taken_again_come_out_the_same_and_the_checkpoint_is_loaded(
    open_run, trained, steps, reached, compared, whole
):
    run = open_run(seed=9)
    files = files_of(run.manager.root.path)
    metrics = len(run.manager.root.metrics())

    found = run.resume(resume_verification=(run.loop, steps))

    report = found.replay
    assert (report.from_step, report.to_step) == (3, reached)
    assert (report.num_compared, report.state_compared) == (compared, whole)
    assert (report.difference, report.why_not) == (None, None)
    assert "no difference" in str(report)
    assert (found.step, found.epoch, found.position) == (8, 2, 8)
    assert run.state() == trained
    assert files_of(run.manager.root.path) == files  # nothing was saved
    assert len(run.manager.root.metrics()) == metrics
    assert next(run.loop(found)) == 9


def test_a_function_of_the_step_may_be_given_too(open_run, trained):
    run = open_run(seed=9)
    steps = []
    loop = {}

    def train_step(step):
        if not loop:
            loop["running"] = run.loop(SimpleNamespace(step=step - 1))
        steps.append(next(loop["running"]))

    found = run.resume(resume_verification=(train_step, 3))
    assert steps == [4, 5, 6]
    assert found.replay.num_compared == 3
    assert run.state() == trained


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda step, batch: batch + 1e-3 * (step == 5), r"step 5: loss was .*, now it is "),
        (lambda step, batch: torch.rand(1) * 0 + batch, r"step 5: loss was .*, now it is "),
    ],
    ids=["another number", "a random number more"],
)
def test_the_first_step_that_differs_is_named_and_the_checkpoint_is_loaded(
    open_run, trained, spoil, words
):
    run = open_run(seed=9)

    def loop(found):
        return (yield from run.loop(found, spoil))

    with pytest.raises(ReplayMismatchError, match=words) as caught:
        run.resume(resume_verification=(loop, 4))
    assert caught.value.report.from_step == 3
    assert run.state() == trained
    assert run.manager._session.replay is None


def test_another_batch_is_named(open_run, trained):
    run = open_run(seed=9)

    def loop(found):
        next(iter(run.sampler))  # one that nobody trains on
        yield from run.loop(found)

    with pytest.raises(ReplayMismatchError, match=r"step 4: another batch; now it is \[\d+, "):
        run.resume(resume_verification=(loop, 2))
    assert run.state() == trained


def test_a_state_that_differs_where_nothing_was_told_is_named(open_run, trained):
    run = open_run(seed=9)

    def loop(found):
        for step in run.loop(found):
            if step == 8:
                with torch.no_grad():
                    run.model[3].bias[0] += 1e-6
            yield step

    with pytest.raises(ReplayMismatchError, match=r"step 8: the tensor model/3\.bias differs"):
        run.resume(resume_verification=(loop, 5))

    def other(found):
        for step in run.loop(found):
            if step == 8:
                random.random()
            yield step

    with pytest.raises(ReplayMismatchError, match="step 8: the tensor training/random/"):
        run.resume(resume_verification=(other, 5))
    assert run.state() == trained


def test_a_loop_that_fails_leaves_the_checkpoint_loaded(open_run, trained):
    run = open_run(seed=9)

    def loop(found):
        yield next(run.loop(found))
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        run.resume(resume_verification=(loop, 5))
    assert run.state() == trained
    assert run.manager._session.replay is None


# ---------------------------------------------------------------- nothing to compare with
def test_a_fresh_start_and_a_first_checkpoint_have_nothing_to_verify(open_run, caplog):
    run = open_run(saved=(3,))
    found = run.resume(resume_verification=(run.loop, 3))
    assert "fresh start" in found.replay.why_not
    for _ in run.loop(found, last=4):
        pass
    again = open_run()
    found = again.resume(resume_verification=(again.loop, 3))
    assert found.step == 3
    assert "is the first checkpoint of its model" in found.replay.why_not
    assert "nothing was verified" in caplog.text


def test_a_branch_has_nothing_to_verify(open_run, trained):
    run = open_run(config={"lr": 1})
    found = run.resume(on_change="continue", resume_verification=(run.loop, 3))
    assert found.step == 8
    assert "a new branch" in found.replay.why_not
    for _ in run.loop(found, last=9):
        pass
    run.manager.save_model_checkpoint(run.model, step=9, optimizer=run.optimizer)
    found = run.resume(resume_verification=(run.loop, 3))
    assert "was not trained in one experiment" in found.replay.why_not


@pytest.mark.parametrize("harm", ["deleted", "damaged", "flipped"])
def test_without_the_checkpoint_before_nothing_is_verified(open_run, trained, harm):
    run = open_run()
    root, exp_hash = run.manager.root, run.manager.current_hash
    model = root.path / "checkpoints" / exp_hash / "model"
    if harm == "deleted":
        root.delete(exp_hash, step=3)
    elif harm == "damaged":
        flip(model / f"{exp_hash}_step_000003.json")
    else:
        flip(model / f"{exp_hash}_step_000003.safetensors")
    found = run.resume(resume_verification=(run.loop, 3))
    assert found.step == 8
    assert found.replay.why_not.startswith("the checkpoint before it")
    assert run.state() == trained


def test_steps_of_which_nothing_is_recorded_are_compared_at_their_end_alone(open_run):
    run = open_run(saved=(3,))
    for _ in run.loop(run.resume(), last=3):
        pass
    for _ in run.loop(SimpleNamespace(step=3), told=False, last=8):
        pass

    def silent(found):
        return (yield from again.loop(found, told=False))

    again = open_run()
    report = again.resume(resume_verification=(silent, 3)).replay
    assert "nothing was recorded of the 3 steps after step 3" in report.why_not
    report = again.resume(resume_verification=(silent, 5)).replay
    assert (report.num_compared, report.state_compared, report.why_not) == (0, True, None)


def test_saving_a_step_again_after_a_load_is_still_no_new_revision(open_run, trained):
    run = open_run()
    found = run.resume()
    run.manager.save_model_checkpoint(
        run.model, step=8, optimizer=run.optimizer, metrics=found.metrics
    )
    assert run.manager.root.latest().name.revision == 1
