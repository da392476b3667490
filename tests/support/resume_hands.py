"""Training scripts that resume, as worker processes; run by the fork server."""

from __future__ import annotations

import hashlib

import h5py  # noqa: F401 - loaded before the fork, not once in each worker
import torch

from support.courses import Course
from support.fork_server import speak
from support.roots import fast_folder
from weightslab.components import FixedInterval

torch.set_num_threads(1)  # no pool of threads that a fork would leave behind

CASE = {
    "optimizer": "AdamW",
    "scheduler": "StepLR",
    "dropout": True,
    "norm": True,
    "bf16": False,
    "accumulate": 1,
}


def train(ready, path, last):
    """The script: resume, train to the last step, save in the background every third step."""
    ready()
    course = Course(CASE)
    manager = course.manage(path, async_save=True, save_policy=FixedInterval(3))
    found = manager.resume(course.model, optimizer=course.optimizer)
    course.num_steps = found.step
    speak(resumed=found.step)
    for event in course.steps():
        if event == "step":
            manager.step(course.num_steps, model=course.model, optimizer=course.optimizer)
            speak(step=course.num_steps)
            if course.num_steps >= last:
                break
    manager.close()
    return digest_of(course)


def train_in_one_go(ready, last):
    """The same without checkpoints."""
    ready()
    course = Course(CASE)
    for event in course.steps():
        if event == "step" and course.num_steps >= last:
            break
    return digest_of(course)


def digest_of(course):
    """Return digests of the state in the end, by what it is the state of."""
    state = course.state().items()
    texts = {name: repr(in_order(part)) for name, part in state}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


def in_order(state):
    """Return dicts as sorted lists: the order of keys is no state."""
    if isinstance(state, dict):
        return sorted(((repr(k), in_order(v)) for k, v in state.items()), key=lambda pair: pair[0])
    return [in_order(v) for v in state] if isinstance(state, (list, tuple)) else state


def go_on_beside_others(ready, path, by, num_steps):
    """Resume what the others resume too, then train differently and save each step."""
    course = Course(CASE)
    manager = course.manage(path)
    found = manager.resume(course.model, optimizer=course.optimizer, resume="latest")
    ready()
    course.num_steps = found.step
    torch.manual_seed(by)  # dropout tells the two apart
    for event in course.steps():
        if event == "step":
            manager.save_model_checkpoint(
                course.model,
                step=course.num_steps,
                optimizer=course.optimizer,
                metadata={"by": by},
            )
            if course.num_steps == found.step + num_steps:
                break
    manager.close()
    return found.step


def warm_up():
    """Do all of it once, so that no worker spends a second on late imports."""
    with fast_folder() as folder:
        path = str(folder / "root")
        for last in (3, 4):
            course = Course(CASE)
            with course.manage(path, async_save=True, save_policy=FixedInterval(3)) as manager:
                found = manager.resume(course.model, optimizer=course.optimizer)
                course.num_steps = found.step
                for event in course.steps():
                    if event == "step":
                        manager.step(
                            course.num_steps, model=course.model, optimizer=course.optimizer
                        )
                    if course.num_steps >= last:
                        break


warm_up()
