"""Checkpoints that know what produced them, in seven scenes on real data.

    python weightslab/examples/checkpoint_v2_example.py --root demo_root

A small CNN learns handwritten digits. On the way its architecture, its config and its training data
change, and each change begins a new experiment that knows where it came from. Run it twice into one
root: the second run finds everything again and writes no checkpoint twice.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from typing import TYPE_CHECKING, Any

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import MissingExtraError
from weightslab.examples.digits import (
    Digits,
    DigitsCNN,
    Samples,
    WideDigitsCNN,
    accuracy,
    carry_over,
    load_data,
    make_deterministic,
    new_model,
    sample_losses,
    train_steps,
)
from weightslab.examples.screen import Screen, percent, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from weightslab.engine.root import CheckpointRoot

__all__ = ["main"]

CONFIG: dict[str, Any] = {
    "seed": 5,  # seeds 0 to 5 find 49 to 54 of 54 flipped labels and gain 0.8 to 2.0 points
    "batch_size": 32,
    "optimizer": {"name": "Adam", "lr": 0.003},
    "data": {"source": "sklearn digits", "test_share": 0.4, "flipped_share": 0.05},
    "comment": "a first try",  # says nothing about the training: left out of the hash
}
FIRST, LOOP_END, WIDE_END, SLOW_END, LAST = 50, 150, 300, 400, 1000  # optimizer steps
SAVE_EVERY = 25
NUM_DISCARDED = 60  # the true number of wrong labels (54) is what a user does not know


def basic_use(
    screen: Screen, manager: CheckpointManagerV2, data: Digits, config: dict[str, Any]
) -> str:
    """Say what the experiment is, train a little, save."""
    screen.scene(
        1,
        "Basic use",
        "Model, config and samples make an experiment; its hash is its name.",
    )
    model, optimizer = new_model(DigitsCNN, config)
    update = manager.update_experiment_hash(model, config, data.train.uids)
    screen.experiment(update)

    steps = train_steps(model, optimizer, data.train, config, start=0, stop=FIRST)
    *_, (step, loss) = steps
    metrics = {"loss": loss, "test_accuracy": accuracy(model, data.test)}
    path = manager.save_model_checkpoint(model, step=step, optimizer=optimizer, metrics=metrics)

    screen.say(f"Step {step}: test accuracy {percent(metrics['test_accuracy'])}, saved as")
    screen.say(f"  {path.name}", style="cyan")
    screen.say("A plain safetensors file; optimizer, metrics and ancestry lie beside it.")
    return update.exp_hash


def training_loop(
    screen: Screen, manager: CheckpointManagerV2, data: Digits, config: dict[str, Any]
) -> DigitsCNN:
    """Resume from the latest checkpoint, then save every N steps."""
    screen.scene(
        2,
        "A training loop",
        f"As after a restart: resume from the latest checkpoint, save every {SAVE_EVERY} steps.",
    )
    model, optimizer = new_model(DigitsCNN, config)
    manager.update_experiment_hash(model, config, data.train.uids)
    found = manager.load_latest_checkpoint(model, optimizer=optimizer)
    start = found["step"] if found else 0
    left = LOOP_END - start if start < LOOP_END else "nothing"
    screen.say(f"Resumed at step {start}, optimizer included; {left} left to train.")

    steps = train_steps(model, optimizer, data.train, config, start=start, stop=LOOP_END)
    for step, loss in screen.progress(steps, start=start, stop=LOOP_END, keep=True):
        if step % SAVE_EVERY == 0:
            metrics = {"loss": loss, "test_accuracy": accuracy(model, data.test)}
            manager.save_model_checkpoint(model, step=step, optimizer=optimizer, metrics=metrics)
            screen.say(f"  saved step {step:3}   test accuracy {percent(metrics['test_accuracy'])}")
    return model


def architecture_change(
    screen: Screen,
    manager: CheckpointManagerV2,
    data: Digits,
    config: dict[str, Any],
    small: DigitsCNN,
    first: str,
) -> tuple[DigitsCNN, Optimizer]:
    """Begin a new experiment with a wider model that inherits what fits of the small one."""
    screen.scene(
        3,
        "An architecture change",
        "A wider head and a batch norm: another model, so another experiment.",
    )
    model, optimizer = new_model(WideDigitsCNN, config)
    copied = carry_over(small, model)
    update = manager.update_experiment_hash(model, parent=(first, LOOP_END))
    screen.experiment(update)
    screen.say(f"Carried over from step {LOOP_END} what fits: {', '.join(copied)}.\n")

    steps = train_steps(model, optimizer, data.train, config, start=LOOP_END, stop=WIDE_END)
    for step, loss in screen.progress(steps, start=LOOP_END, stop=WIDE_END):
        if step % 50 == 0:
            metrics = {"loss": loss, "test_accuracy": accuracy(model, data.test)}
            manager.save_model_checkpoint(model, step=step, optimizer=optimizer, metrics=metrics)
    screen.say(f"Step {WIDE_END}: test accuracy {percent(accuracy(model, data.test))}")
    return model, optimizer


def config_change(
    screen: Screen,
    manager: CheckpointManagerV2,
    data: Digits,
    config: dict[str, Any],
    model: DigitsCNN,
    optimizer: Optimizer,
) -> None:
    """Change the config; the manager finds everything in the ledger."""
    screen.scene(
        4,
        "A config change",
        "What is registered in the ledger need not be passed: the manager looks there.",
    )
    ledgers.register_model("digits", model)
    ledgers.register_optimizer("adam", optimizer)
    ledgers.register_hyperparams("config", config)

    config["comment"] = "slower, to settle"
    screen.say("A new comment, which is in config_exclude and so not in the hash:")
    screen.experiment(manager.update_experiment_hash())
    config["optimizer"]["lr"] = optimizer.param_groups[0]["lr"] = 0.002
    screen.say("\nA new learning rate, which is:")
    screen.experiment(manager.update_experiment_hash())

    steps = train_steps(model, optimizer, data.train, config, start=WIDE_END, stop=SLOW_END)
    for step, loss in screen.progress(steps, start=WIDE_END, stop=SLOW_END):
        if step % 50 == 0:
            metrics = {"loss": loss, "test_accuracy": accuracy(model, data.test)}
            manager.save_model_checkpoint(step=step, metrics=metrics)
    screen.say(f"\nStep {SLOW_END}: test accuracy {percent(accuracy(model, data.test))}")
    ledgers.clear_all()  # the other scenes pass their objects


def find_suspects(screen: Screen, data: Digits, model: DigitsCNN) -> set[str]:
    """Return the UIDs of the training samples whose label surprises the model most."""
    screen.scene(
        5,
        "Discarding mislabelled samples",
        f"{len(data.flipped)} training labels are wrong on purpose. What surprises the model goes.",
    )
    train = data.train
    losses, guesses = sample_losses(model, train)
    worst = losses.topk(NUM_DISCARDED).indices.tolist()
    suspects = {train.uids[row] for row in worst}
    captions = [
        f"{train.uids[row]}\nlabel {int(train.labels[row])}, model says {int(guesses[row])}"
        for row in worst[:3]
    ]
    screen.say("The three highest losses:\n")
    screen.images(train.images[worst[:3]], captions)
    screen.say("")
    found, hard = len(suspects & data.flipped), len(suspects - data.flipped)
    screen.say(
        f"Found {found} of {len(data.flipped)} flipped labels among {len(suspects)} discarded samples",
        style="bold",
    )
    screen.say(
        f"precision {percent(found / len(suspects))}, recall {percent(found / len(data.flipped))}; "
        f"the other {hard} are hard to read, but labelled right\n"
    )
    return suspects


def discarding(
    screen: Screen,
    manager: CheckpointManagerV2,
    data: Digits,
    config: dict[str, Any],
    model: DigitsCNN,
    optimizer: Optimizer,
    suspects: set[str],
) -> str:
    """Train on with and without the suspicious samples, from the same checkpoint."""
    before = accuracy(model, data.test)

    def train_on(samples: Samples) -> float:
        steps = train_steps(model, optimizer, samples, config, start=SLOW_END, stop=LAST)
        for step, loss in screen.progress(steps, start=SLOW_END, stop=LAST):
            if step % 200 == 0:
                metrics = {"loss": loss, "test_accuracy": accuracy(model, data.test)}
                manager.save_model_checkpoint(
                    model, step=step, optimizer=optimizer, metrics=metrics
                )
        return accuracy(model, data.test)

    with_all = train_on(data.train)
    manager.load_checkpoint(SLOW_END, model=model, optimizer=optimizer)  # back to where we were
    clean = data.train.without(suspects)
    update = manager.update_experiment_hash(active_data_uids=clean.uids)
    screen.experiment(update)
    without = train_on(clean)

    screen.say(f"\nFrom step {SLOW_END}, the same {LAST - SLOW_END} steps with and without them:\n")
    rows = [
        ["before", str(SLOW_END), f"{len(data.train):,}", percent(before)],
        ["after, all samples kept", str(LAST), f"{len(data.train):,}", percent(with_all)],
        ["after discarding", str(LAST), f"{len(clean):,}", percent(without)],
    ]
    screen.table(["", ">step", ">samples", ">test accuracy"], rows, strong=[2])
    return update.exp_hash


def loading(screen: Screen, root: str, data: Digits, first: str, cleaned: str) -> None:
    """Load the latest checkpoint, a given step and the config alone, as another process would."""
    screen.scene(
        6,
        "Loading",
        "A second manager opens the root read-only, as a colleague would.",
    )
    rows: list[list[str]] = []

    def note(what: str, found: dict[str, Any] | None, model: DigitsCNN) -> None:
        assert found is not None, "an experiment of this example has checkpoints"
        saved, measured = found["metrics"]["test_accuracy"], accuracy(model, data.test)
        step, name = str(found["step"]), short(found["exp_hash"])
        rows.append([what, name, step, percent(saved), percent(measured)])

    with CheckpointManagerV2(root, read_only=True) as reader:
        config = reader.load_config(cleaned)
        model, optimizer = new_model(WideDigitsCNN, config)
        found = reader.load_latest_checkpoint(model, optimizer=optimizer, exp_hash=cleaned)
        note("the latest", found, model)

        model, optimizer = new_model(DigitsCNN, config)
        found = reader.load_checkpoint(LOOP_END, short(first), model, optimizer=optimizer)
        note(f"step {LOOP_END}, by a short hash", found, model)

        best = reader.root.best("test_accuracy", mode="max")
        findings = reader.root.verify()

    screen.table(["loaded", "experiment", ">step", ">accuracy saved", ">measured now"], rows)
    screen.say("\nThe config alone, without a model:")
    screen.config(config)
    if best is not None:
        screen.say(
            f"\nroot.best('test_accuracy'): step {best.name.step} of {short(best.name.exp_hash)}, "
            f"{percent(best.metrics['test_accuracy'])}"
        )
    screen.say(f"root.verify() read every byte again and found {len(findings)} damaged files.")


def overview(screen: Screen, root: CheckpointRoot) -> None:
    """Show all experiments of the root as a table, and as a tree of who came from whom."""
    screen.scene(
        7,
        "All experiments",
        "Read from the files of the root alone; the tree is who trained on from whom.",
    )
    rows: list[list[str]] = []
    children: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for entry in root.experiments():
        name, saved = entry.exp_hash, root.checkpoints(entry.exp_hash)
        facts = entry.record.facts if entry.record else {}
        best = root.best("test_accuracy", mode="max", exp_hash=name)
        rows.append(
            [
                short(name),
                str(facts.get("model_class", "")),
                f"{facts.get('num_parameters', 0):,}",
                f"{facts.get('num_samples', 0):,}",
                str(len(saved)),
                f"{saved[0].name.step} to {saved[-1].name.step}" if saved else "",
                percent(best.metrics["test_accuracy"]) if best else "",
            ]
        )
        link = saved[0].parent if saved else None
        parent = link.exp_hash if link and link.exp_hash in labels else None
        children.setdefault(parent or "", []).append(name)
        labels[name] = short(name)
        if link and parent:
            changes = [f"  {change.text}" for change in root.changes(parent, name)]
            labels[name] += "\n".join([f" from step {link.step}", *changes])
    columns = ["experiment", "model", ">parameters", ">samples", ">saved", "steps", ">best"]
    screen.table(columns, rows)
    screen.say("")
    screen.tree("Who came from whom", children, labels)


def play(screen: Screen, root: str) -> None:
    """Play all scenes into `root`."""
    config = copy.deepcopy(CONFIG)
    data = load_data(config)
    make_deterministic()
    screen.say(
        f"{len(data.train) + len(data.test):,} handwritten digits from scikit-learn: "
        f"{len(data.train):,} to train on, {len(data.test)} to test with."
    )
    with CheckpointManagerV2(root, config_exclude=("comment",)) as manager:
        before = len(manager.root.experiments()), len(manager.root.checkpoints())
        if before[0]:
            screen.say(
                f"{root} holds {before[0]} experiments with {before[1]} checkpoints. The same work "
                "gets the same hashes, so they are known already and nothing is written twice."
            )
        first = basic_use(screen, manager, data, config)
        small = training_loop(screen, manager, data, config)
        model, optimizer = architecture_change(screen, manager, data, config, small, first)
        config_change(screen, manager, data, config, model, optimizer)
        suspects = find_suspects(screen, data, model)
        cleaned = discarding(screen, manager, data, config, model, optimizer, suspects)
        loading(screen, root, data, first, cleaned)
        overview(screen, manager.root)
        after = len(manager.root.experiments()), len(manager.root.checkpoints())
    new = after[0] - before[0], after[1] - before[1]
    again = "Run it again: nothing is lost, nothing is written twice." if new[1] else ""
    screen.say(
        f"\nThis run added {new[0]} of the {after[0]} experiments and {new[1]} of the {after[1]} "
        f"checkpoints in {root}. {again}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; returns the exit status."""
    parser = argparse.ArgumentParser(description="Checkpoints that know what produced them.")
    parser.add_argument(
        "--root", default="demo_root", help="folder to save into (default: %(default)s)"
    )
    root = parser.parse_args(arguments).root
    started = time.perf_counter()
    try:
        screen = Screen()
        play(screen, root)
    except MissingExtraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    screen.say(f"Done in {time.perf_counter() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
