"""System calls of a worker: counted, recorded with their bytes, made to fail or to kill (strace)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# What changes files or names, and what is needed to tell which file a call is about.
CHANGING = (
    *("mkdir", "mkdirat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate"),
    *("truncate", "fallocate", "fsync", "fdatasync", "link", "linkat", "symlink", "symlinkat"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
)
OPENING = ("openat", "open", "creat")
FOLLOWING = ("lseek", "close", "dup", "dup2", "dup3", "fcntl", "sendto")
GUARD_SECONDS = 8
_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)", re.DOTALL)
_CALL = re.compile(r"(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|\?)(?P<why>.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that was made.

    Attributes:
        name: of the system call.
        args: its arguments as strace shows them, texts as hex.
        result: what it returned; negative for an error.
        thread: number of the thread, 0 for the first that made a call.
        number: how many calls of this name the thread had made before, plus one: what strace
            counts with `when=`.
    """

    name: str
    args: str
    result: int
    thread: int
    number: int

    def texts(self):
        """Return the byte strings among the arguments."""
        return [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(self.args)]

    def integers(self):
        """Return the arguments that are plain integers, in order."""
        return [int(a) for a in re.split(r",\s*", self.args) if re.fullmatch(r"-?\d+", a)]

    def creates(self):
        """Tell whether this opens a file that may come into being, or empties one."""
        return self.name in OPENING and ("O_CREAT" in self.args or "O_TRUNC" in self.args)

    def changes(self):
        """Tell whether files or names are different after it."""
        return self.result >= 0 and (self.name in CHANGING or self.creates())


def why_not_here():
    """Return why system calls cannot be injected into on this machine; None if they can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "strace records and injects, and it is not installed"
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else f"strace may not trace here: {done.stderr:.200}"


def attach(pid, *options):
    """Attach strace to a process that waits at the gate; returns it once it is attached.

    Raises: OSError with the words of strace.
    """
    tracer = subprocess.Popen(
        ["strace", "-qq", "-f", "-p", str(pid), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 30
    while _tracer_of(pid) == 0:
        if tracer.poll() is not None or time.monotonic() > until:
            tracer.kill()
            _, said = tracer.communicate()
            raise OSError(said.decode())
    return tracer


def _tracer_of(pid):
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"TracerPid:\s*(\d+)", text).group(1))


def detach(tracer):
    """Wait for the end of a tracer whose process has ended."""
    tracer.communicate(timeout=30)


def run_traced(server, job, *options):
    """Run a job under strace; returns (pid, exit status, what it returned)."""
    (pid,) = server.fork(job)
    server.listen_for(pid, "ready")
    if not server.heard(pid, "ready"):  # it came to nothing before anything could be left out
        raise RuntimeError(server.heard(pid, "failed")[0])
    tracer = attach(pid, *options)
    # strace 6.1 now and then forgets a stopped process that had a second thread; without it the
    # process goes on, as if nothing had been injected
    guard = threading.Timer(GUARD_SECONDS, tracer.kill)
    guard.start()
    try:
        server.release()
        status, result = server.wait(pid)
    finally:  # a worker that failed with an error of its own has ended, too
        guard.cancel()
        detach(tracer)
    return pid, status, result


def recorded(server, job, log):
    """Run a job; returns its calls in the order in which they ended, and what it returned."""
    names = ",".join([*CHANGING, *OPENING, *FOLLOWING])
    options = ("-e", f"trace={names}", "-v", "-xx", "-s", "99999999", "-o", str(log))
    _, status, result = run_traced(server, job, *options)
    assert status == 0
    return list(parse(log.read_text(encoding="ascii"))), result


def injecting(point, fault):
    """Return the options with which strace injects `fault` at the call with a name and number."""
    name, number = point
    return "-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={number}"


def inject(server, job, point, fault):
    """Run a job with a fault at one point; returns (pid, exit status, what the job returned)."""
    return run_traced(server, job, *injecting(point, fault))


def parse(text):
    """Yield the calls of a log of strace, put together where threads interrupted each other."""
    begun, threads, counts = {}, {}, Counter()
    numbers = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        pid, rest = found["pid"], found["rest"]
        if rest.startswith(("---", "+++")):
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            rest = begun.pop(pid) + rest[resumed.end() :]
        else:
            thread = threads.setdefault(pid, len(threads))
            name = rest.partition("(")[0]
            counts[thread, name] += 1
            numbers[pid] = counts[thread, name]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        call = _CALL.match(rest)
        if call is None or call["result"] == "?":
            continue
        yield Call(call["name"], call["args"], int(call["result"]), threads[pid], numbers[pid])
