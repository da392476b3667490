"""Held signals: they wait until a checkpoint is safe, then go where they would have gone.

The handler itself only notes a signal and its time. What the signal does otherwise is done by
`deliver`, at a moment that its caller chooses.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.saving.policies import OnPreemption, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["HeldSignals", "Preempted"]

_SAME_PRESS_SECONDS: Final = 1.0  # launchers repeat the Ctrl-C that the terminal has sent already
_installed: weakref.WeakSet[HeldSignals] = weakref.WeakSet()


class Preempted(SystemExit):
    """The process was told to end, and its last step is committed.

    Attributes:
        signal: number of the signal; the exit status is 128 + this number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)  # what shells and container runtimes report for it
        self.signal = number


class HeldSignals:
    """Handlers of the signals that policies name, from here to `release`.

    A signal that the process ignores stays ignored. Where `holds` is False, and in a forked child,
    signals do what they did before.

    Args:
        policies: what to do about which signal.
        clock: monotonic seconds.
    Attributes:
        arrived: what was held back and not delivered yet: number -> time, in the order it came.
        holds: there is something to save, so signals wait; False at first.
    Raises: CheckpointError outside of the main thread, where Python installs no handlers, and for a
        signal whose handler is not a Python function, which could not be put back.
    """

    def __init__(self, policies: Iterable[OnPreemption], clock: Callable[[], float]) -> None:
        self.arrived: dict[int, float] = {}
        self._policies = {number: policy for policy in policies for number in policy.numbers}
        self._clock = clock
        self._pid = os.getpid()
        self.holds = False
        self._passing: set[int] = set()  # on their way from another thread
        self._before: dict[int, Any] = {}
        if self._policies:
            self._install()

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise CheckpointError(
                "OnPreemption needs the main thread: Python installs signal handlers nowhere else",
                hint="make the manager in the main thread; step() may be called in another one",
            )
        for number in self._policies:
            if signal.getsignal(number) is None:
                raise CheckpointError(
                    f"{signal_name(number)} has a handler that is not a Python function, and could "
                    "not be put back",
                    hint="leave it out of OnPreemption(signals=...)",
                )
        for number in self._policies:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # nohup: somebody wants the process to live on
                self._before[number] = before
                signal.signal(number, self._handle)
        _installed.add(self)

    def release(self) -> None:
        """Put the earlier handlers back; signals that arrived are still there to `deliver`."""
        self.holds = False
        if threading.current_thread() is not threading.main_thread():
            return  # they pass everything on from now on
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)
        _installed.discard(self)

    def policy_of(self, number: int) -> OnPreemption:
        """Return the policy that holds a signal."""
        return self._policies[number]

    def deliver(self) -> None:
        """Let all signals that arrived do what their policies say, once each.

        Does not return where one of them ends the process: it raises, or the process dies.
        """
        # Ctrl-C goes last: a notebook catches it, and the order to end would be lost with it.
        for number in sorted(self.arrived, key=lambda number: number == signal.SIGINT):
            self.arrived.pop(number, None)
            if self._policies[number].then == "continue":
                continue
            if threading.current_thread() is threading.main_thread():
                self._act(number, None)
            else:
                self._passing.add(number)
                _tell_main_thread(number)  # the handler runs there, and acts there

    # ------------------------------------------------------------ in the handler
    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            self.put_back()
            os.kill(os.getpid(), number)
        elif number in self._passing:
            self._passing.discard(number)
            self._act(number, frame)
        elif not self.holds:
            self._forward(number, frame)
        elif number not in self.arrived:
            self.arrived[number] = self._clock()
        elif number == signal.SIGINT and self._is_second_press(number):
            del self.arrived[number]  # asked twice to stop: at once, and without a save
            self._act(number, frame)

    def _is_second_press(self, number: int) -> bool:
        return self._clock() - self.arrived[number] >= _SAME_PRESS_SECONDS

    def _act(self, number: int, frame: Any) -> None:
        """Do what follows the save."""
        if self._policies[number].then == "signal":
            self._by_default(number)
        elif callable(self._before[number]):
            self._before[number](number, frame)
        else:
            raise Preempted(number)

    def _forward(self, number: int, frame: Any) -> None:
        """Do what would have happened without this handler."""
        before = self._before[number]
        if callable(before):
            before(number, frame)
        else:
            self._by_default(number)

    def _by_default(self, number: int) -> None:
        """Let the system do what it does with a signal that has no handler: end, mostly."""
        for stream in (sys.stdout, sys.stderr):  # what was printed would be lost otherwise
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        handler = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, handler)  # still here: this one stops the process, or does nothing

    def put_back(self) -> None:
        """Put the earlier handlers back in a forked child, which has no checkpoint to save."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)


def _tell_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # wakes it up where it waits for this very thread
    else:
        os.kill(os.getpid(), number)


def _put_back_all() -> None:
    for held in list(_installed):
        held.put_back()
    _installed.clear()


if hasattr(os, "register_at_fork"):
    # DataLoader workers are ended by SIGTERM: held back in a child, it would never end
    os.register_at_fork(after_in_child=_put_back_all)
