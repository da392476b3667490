"""Programs that are told to end. Run as `python -m support.preempted`; see `tests/integration/test_preemption.py`.

Lines in: a JSON list of a program's name and the folder it works in. Each program runs in a forked
child to the very end of its interpreter; the line out is its pid and, once it is over, its status.
Output goes to files in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from support.training import CONFIG, make, train
from weightslab.components import AtExit, CheckpointManagerV2, FixedInterval, OnPreemption

TERM, INT = signal.SIGTERM, signal.SIGINT
KEPT = []  # what a script keeps at its top level


class Loop:
    """A manager and a small model; a signal or an exception comes in the middle of a step."""

    def __init__(self, policy, **more):
        self.model, self.optimizer = make()
        self.manager = CheckpointManagerV2("root", save_policy=policy, **more)
        self.manager.update_experiment_hash(self.model, CONFIG)

    def run(self, last, *, first=1, events=()):
        events = dict(events)
        for step in range(first, last + 1):
            train(self.model, self.optimizer)
            events.get(step, bool)()
            self.manager.step(step, {"n": step}, model=self.model, optimizer=self.optimizer)
            say(step)


def say(*words, flush=False):
    """Print, into a buffer that is flushed at the end."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    if flush:
        sys.stdout.flush()


def kill(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def in_with(policy, *numbers, **more):
    loop = Loop(policy, **more)
    try:
        with loop.manager:
            loop.run(4, events={3: lambda: kill(*numbers)})
    finally:
        say("cleaned up")


def exits():
    in_with(OnPreemption(), TERM)


def exits_with_a_save_under_way():
    in_with(FixedInterval(1) | OnPreemption(), TERM, async_save=True)


def exits_once():
    in_with(OnPreemption(), TERM, INT, TERM, INT)


def interrupted():
    in_with(OnPreemption(), INT)


def dies():
    in_with(OnPreemption(then="signal"), TERM)


def goes_on():
    in_with(OnPreemption(signal.SIGUSR1, then="continue"), signal.SIGUSR1)


def ignores():
    signal.signal(TERM, signal.SIG_IGN)
    in_with(OnPreemption(), TERM)


def asks_an_earlier_handler():
    signal.signal(TERM, lambda *_: say("handler"))
    in_with(OnPreemption(), TERM)


def before_the_first_step():
    loop = Loop(OnPreemption())
    with loop.manager:
        loop.run(1, events={1: lambda: kill(TERM)})


def after_close():
    loop = Loop(OnPreemption())
    with loop.manager:
        loop.run(1)
    kill(TERM)


def waits_for_its_parent():
    """In the middle of step 3 until somebody else sends a signal."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    loop = Loop(OnPreemption(), async_save=True)
    signal.set_wakeup_fd(writing)

    def wait():
        Path("ready").write_text("")
        os.read(reading, 1)

    with loop.manager:
        loop.run(5, events={3: wait})


def steps_in_a_thread():
    """The main thread waits meanwhile, and has to be woken up."""
    loop = Loop(OnPreemption())

    def tell_main():
        # to the main thread, where the system delivers a signal that comes from outside
        signal.pthread_kill(threading.main_thread().ident, TERM)
        while not loop.manager._pacer._held.arrived:
            os.sched_yield()

    with loop.manager:
        loop.run(1)
        thread = threading.Thread(
            target=lambda: loop.run(2, first=2, events={2: tell_main}), daemon=True
        )
        thread.start()
        threading.Event().wait(60)


def has_a_worker():
    """A forked child, as DataLoader has them, is not held back from ending."""
    loop = Loop(OnPreemption())
    with loop.manager:
        loop.run(1)
        pid = os.fork()
        if pid == 0:
            kill(TERM)
            os._exit(0)
        say("worker", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def ends_without_close():
    loop = Loop(AtExit(), async_save=True)
    KEPT.append(loop)
    loop.run(3)


def raises_without_with():
    ends_without_close()
    raise ValueError("mine")


def ends_after_its_optimizer():
    loop = Loop(AtExit())
    loop.run(3)
    KEPT.append(loop.model)  # but not its optimizer


def serve():
    train(*make())  # torch imports much at the first step; once here, not in each child
    for line in sys.stdin:
        name, folder = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(folder)
            for descriptor, file in ((1, "out"), (2, "err")):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o666), descriptor)
            sys.stdout = os.fdopen(1, "w", closefd=False)  # with an empty buffer of its own
            return globals()[name]()
        say(pid, flush=True)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    serve()
