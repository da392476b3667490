"""The command line as people call it: real processes, pipes that break, a narrow terminal, other locales.

A process costs half a second, so each looks at several things.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from support.command_line import FIRST, INERT, make_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals and signals of POSIX"),
]
COMMAND = [sys.executable, "-m", "weightslab"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "root"
    make_root(path)
    return path


def environment(root, **more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "COLUMNS"))}
    return {**kept, "WEIGHTSLAB_ROOT": str(root), "LC_ALL": "C.UTF-8", **more}


def call(root, *words, **more):
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        env=environment(root, **more),
        stdin=subprocess.DEVNULL,
        check=False,
    )


def in_terminal(root, *words, columns, **more):
    """Run in a pseudo-terminal of that width; returns what it showed."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(root, **more),
        close_fds=True,
    ) as process:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while part := os.read(leader, 1 << 16):
                shown += part
        os.close(leader)
        assert process.wait(timeout=60) == 0
    return shown.decode()


def test_a_narrow_terminal_gets_short_lines_in_colour_and_a_pipe_gets_plain_ones(root):
    shown = in_terminal(root, "ls", columns=40, TERM="xterm")
    assert "\x1b[31m" in shown  # what is damaged is red
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n").splitlines()
    assert max(map(len, plain)) <= 40
    assert [line[:8] for line in plain[1:]] == ["1e5fa8b7", FIRST[:8], "ce5897fb"]
    assert "\x1b" not in in_terminal(root, "ls", columns=200, TERM="xterm", NO_COLOR="1")

    piped = call(root, "ls")
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert INERT in piped.stdout.decode()
    assert b"\x1b" not in piped.stdout


def test_locales_that_cannot_show_it_get_ascii(root):
    for variables in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii", "LC_ALL": ""}):
        done = call(root, "log", **variables)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"#= _" in done.stdout
        assert done.stdout.isascii()


def test_a_reader_that_has_enough_ends_it_quietly(root):
    with subprocess.Popen(
        [*COMMAND, "samples", "1e5f", "--uids"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(root, PYTHONUNBUFFERED="1"),
    ) as process:
        process.stdout.close()  # before the first line
        told = process.stderr.read()
        assert (process.wait(timeout=60), told) == (141, b"")


def test_errors_of_a_process_go_to_the_error_output(root):
    done = call(root, "show", "ffff")
    assert (done.returncode, done.stdout) == (10, b"")
    assert done.stderr.startswith(b"error: no experiment 'ffff'\nhint: nearest: ")
    done = call(root, "rm", f"{FIRST}@2")
    assert done.returncode == 2
    assert b"hint: pass --yes" in done.stderr


def test_completion_offers_hashes_and_steps(root):
    words = {
        "_WEIGHTSLAB_COMPLETE": "complete_bash",
        "COMP_WORDS": f"weightslab show {FIRST[:4]}",
        "COMP_CWORD": "2",
    }
    assert call(root, **words).stdout.decode().split() == [FIRST]
    words["COMP_WORDS"] = f"weightslab show {FIRST}@"
    assert call(root, **words).stdout.decode().split() == [
        f"{FIRST}@{word}" for word in ("latest", 3, 2, 1)
    ]


def test_ctrl_c_leaves_no_traceback(root, tmp_path):
    fifo = tmp_path / "uids"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [*COMMAND, "audit", "--file", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(root),
    ) as process:
        end = _open_when_read(fifo, process)  # it waits for UIDs now
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=60)
        os.close(end)
    assert (process.returncode, out, told) == (130, b"", b"")


def _open_when_read(fifo, process):
    """Open a pipe for writing as soon as somebody reads from it."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.sched_yield()
    pytest.fail("the command never read its file")
