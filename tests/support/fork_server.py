"""A small process that imports everything once and forks workers that may be killed.

Run as `python -m support.fork_server MODULE`. Lines in: `fork` with jobs, `release`, `wait` with a
pid. Lines out: answers, and what the workers say; all as JSON, each in one message below the size
that a socket keeps whole. Workers wait at a gate until `release`, so that a crowd starts at once.

Standard output is a socket and is sent to, not written to: so a system call that a test makes fail
(write, writev) is never the one by which a worker says what happened to it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import sys
import traceback
from functools import cache


def speak(**fact):
    """Send one line to the parent of the fork server."""
    _parent().send(json.dumps({"pid": os.getpid(), **fact}).encode() + b"\n")


@cache
def _parent():
    return socket.socket(fileno=1)


class _Gate:
    """A pipe at which workers wait until its writing end is closed everywhere."""

    def __init__(self):
        self.reading, self.writing = os.pipe()

    def wait(self):
        os.close(self.writing)
        os.read(self.reading, 1)

    def open(self):
        os.close(self.writing)
        os.close(self.reading)


def _work(module, job, gate):
    status = 1
    try:
        work = getattr(module, job["work"])
        speak(done=work(gate.wait, *job["args"]))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent raises it again
        speak(failed=traceback.format_exc()[-3000:])
    finally:
        os._exit(status)


def _fork(module, jobs):
    gate, pids = _Gate(), []
    for job in jobs:
        pid = os.fork()
        if pid == 0:
            _work(module, job, gate)
        pids.append(pid)
    return gate, pids


def serve(module_name):
    """Answer the lines of standard input until it ends."""
    logging.disable(logging.CRITICAL)  # here, as tests import such modules too
    module = importlib.import_module(module_name)
    gate = None
    speak(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "fork" in order:
            gate, pids = _fork(module, order["fork"])
            speak(forked=pids)
        elif "release" in order:
            gate.open()
        else:
            _, status = os.waitpid(order["wait"], 0)
            speak(ended=order["wait"], status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve(sys.argv[1])
