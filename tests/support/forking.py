"""The parent's side of the fork server: crowds of workers, and kills."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]


class ForkServer:
    """Workers by the dozen for the price of one import; a context manager.

    Args:
        module: name of the module with the work. Each work is called with `ready`, which it calls
            when it is prepared and wants to wait for the others, and with the arguments of its job;
            what it returns is what `wait` returns.
    """

    def __init__(self, module):
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.fork_server", module],
                stdin=subprocess.PIPE,
                stdout=theirs,
                env=environment,
            )
        self._buffer = b""
        self._said = []
        self._alive = set()
        self._find("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self._alive:  # a test that failed has not waited for them
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.stdin.close()
        self._socket.close()
        self._process.wait(timeout=60)

    def fork(self, *jobs):
        """Start `(work, *arguments)` each in a process that waits at the gate; returns pids."""
        self._tell(fork=[{"work": work, "args": args} for work, *args in jobs])
        pids = self._find("forked")["forked"]
        self._alive.update(pids)
        return pids

    def release(self):
        """Open the gate."""
        self._tell(release=True)

    def wait(self, pid):
        """Wait for the end of a worker; returns (exit status, what it returned or None).

        Raises: AssertionError with the traceback if it failed.
        """
        self._tell(wait=pid)
        status = self._find("ended", ended=pid)["status"]
        self._alive.discard(pid)
        words = self.words(pid)
        failed = [word["failed"] for word in words if "failed" in word]
        assert not failed, failed[0]
        return status, next((word["done"] for word in words if "done" in word), None)

    def run(self, *jobs):
        """Run jobs at once; returns what each returned."""
        pids = self.fork(*jobs)
        self.release()
        return [self.wait(pid)[1] for pid in pids]

    def kill(self, pid):
        """Kill a worker and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)[0]

    def words(self, pid):
        """Return everything a worker has said so far."""
        return [word for word in self._said if word["pid"] == pid]

    def heard(self, pid, key):
        """Return the values that a worker has said under `key`, in order."""
        return [word[key] for word in self.words(pid) if key in word]

    def listen(self, seconds):
        """Collect what is said within `seconds`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                self._take_in()

    def listen_for(self, pid, key, count=1):
        """Collect what is said until a worker has said `key` so many times, or has ended its work."""
        while len(self.heard(pid, key)) < count:
            if self.heard(pid, "done") or self.heard(pid, "failed"):
                return
            self._take_in()

    def _tell(self, **order):
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _find(self, key, **exact):
        while True:
            for word in self._said:
                if key in word and exact.items() <= word.items():
                    self._said.remove(word)
                    return word
            self._take_in()

    def _take_in(self):
        data = self._socket.recv(1 << 16)
        assert data, f"the fork server ended with {self._process.wait()}"
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._said += [json.loads(line) for line in lines]
