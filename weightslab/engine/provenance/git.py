"""Git: what state the training code is in, asked of the program `git` without running anything of it.

No hook, no file system monitor, no filter, no external diff, no pager, no network, no lock: the settings
of a repository that could run a program are switched off for these calls. All of them together end
after two seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from weightslab.engine.repository.provenance import CodeState

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_DIFF_BYTES", "read_code_state", "repository_of"]

MAX_DIFF_BYTES: Final = 256 << 10  # a day of editing; what is larger belongs into a commit
_TIMEOUT_SECONDS: Final = 2.0  # on top of a start that takes longer than that anyway
_MAX_OUTPUT: Final = 4 << 20  # of status and config
_MAX_UNTRACKED: Final = 200
_SAFE: Final = (
    "core.fsmonitor=",
    "core.hooksPath=/dev/null",
    "core.sshCommand=false",
    "core.quotePath=true",
)
_RUNS_PROGRAMS: Final = re.compile(r"(filter\..+)\.(?:clean|smudge|process|required)\Z", re.DOTALL)
_SECTION: Final = re.compile(r"^(?=diff --git )", re.MULTILINE)
_NAMED: Final = re.compile(r"diff --git (?:\"?a/)?(.*?)\"? \"?b/")


class _GitFailedError(Exception):
    """A call of git came to nothing; the text says why."""


@dataclass(slots=True)
class _Git:
    """Calls git in one folder until the time is up."""

    program: str
    folder: Path
    ends_at: float
    settings: list[str] = field(default_factory=lambda: list(_SAFE))

    def __call__(self, *arguments: str, limit: int = _MAX_OUTPUT) -> bytes:
        """Return the first `limit` bytes of what git prints, and one more if there are more."""
        words = [word for setting in self.settings for word in ("-c", setting)]
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed words, no shell
                [self.program, "--no-pager", *words, *arguments],
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise _GitFailedError(f"git cannot be run: {error.strerror}") from error
        return _read(process, arguments[0], limit, self.ends_at - time.monotonic())


def _read(process: subprocess.Popen[bytes], verb: str, limit: int, seconds: float) -> bytes:
    """Read at most `limit` + 1 bytes of its output; the process is gone on return."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        _kill(process)

    timer = threading.Timer(max(seconds, 0.05), end)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None, "it was asked for"
        with process.stdout as output:
            data = output.read(limit + 1)
        if len(data) > limit:
            _kill(process)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            _kill(process)
            process.wait()
    if is_late.is_set():
        raise _GitFailedError(f"git {verb} took too long and was ended")
    if code and len(data) <= limit:
        raise _GitFailedError(f"git {verb} failed with status {code}")
    return data


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started."""
    with contextlib.suppress(OSError):  # it has ended meanwhile
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return kept | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_ASKPASS": "",
        "LC_ALL": "C",
    }


def repository_of(folder: Path) -> Path | None:
    """Return the top of the repository that a folder lies in; None if it is in none. No process."""
    for path in (folder, *folder.parents):
        if (path / ".git").exists():
            return path
    return None


def read_code_state(
    folder: Path,
    *,
    program: str = "git",
    timeout_seconds: float = _TIMEOUT_SECONDS,
    max_diff_bytes: int = MAX_DIFF_BYTES,
) -> tuple[CodeState | None, list[str]]:
    """Return the state of the repository of `folder`, not redacted yet, and what could not be found out.

    Args:
        folder: where the program was started, or its script lies.
        program: the git to run.
        timeout_seconds: of all calls together.
        max_diff_bytes: how much of a diff is kept.
    """
    try:
        top = repository_of(folder)
    except OSError as error:
        return None, [f"the repository cannot be looked for: {error.strerror}"]
    if top is None:
        return None, ["the code is in no git repository"]
    git = _Git(program, top, time.monotonic() + timeout_seconds)
    problems: list[str] = []
    facts: dict[str, object] = {"folder": _below(folder, top)}
    try:
        facts |= _settings(git)
        facts |= _status(git)
        facts |= _diff(git, max_diff_bytes) if facts["commit"] else {}
        facts |= _untracked(git)  # last: it walks through folders that git does not know
    except _GitFailedError as error:
        problems.append(str(error))
    if "commit" not in facts:
        return None, problems
    if facts["commit"] is None:
        problems.append("the repository has no commit yet")
    return CodeState(**facts), problems  # type: ignore[arg-type] # built from its own fields above


def _below(folder: Path, top: Path) -> str:
    return folder.relative_to(top).as_posix()


def _settings(git: _Git) -> dict[str, object]:
    """Return the remote; from here on no filter that the repository names is run."""
    try:
        data = git("config", "-z", "--get-regexp", r"^(remote\..*\.url|filter\..*)$")
    except _GitFailedError as error:
        if not str(error).endswith("status 1"):  # 1: nothing fits
            raise
        return {}
    remotes: dict[str, str] = {}
    for entry in data.decode("utf-8", "replace").split("\0"):
        key, _, value = entry.partition("\n")
        if found := _RUNS_PROGRAMS.match(key):
            name = found[1]
            if "=" in name:  # `git -c` would take it for something else
                raise _GitFailedError(
                    "git is not asked: a filter has a name that cannot be switched off"
                )
            git.settings += [f"{name}.clean=", f"{name}.process=", f"{name}.required=false"]
        elif key.startswith("remote."):
            remotes.setdefault(key[7:-4], value)
    remote = remotes.get("origin") or next(iter(remotes.values()), None)
    return {"remote": remote}


def _status(git: _Git) -> dict[str, object]:
    """Return commit and branch."""
    words = ("--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=dirty")
    commit = branch = None
    for line in git("status", "-z", *words).decode("utf-8", "replace").split("\0"):
        if line.startswith("# branch.oid "):
            commit = line[13:] if line[13:] != "(initial)" else None
        elif line.startswith("# branch.head "):
            branch = line[14:] if line[14:] != "(detached)" else None
    return {"commit": commit, "branch": branch}


def _untracked(git: _Git) -> dict[str, object]:
    """Return the names of what git does not know and does not ignore; whole folders as one."""
    data = git("ls-files", "-z", "--others", "--exclude-standard", "--directory")
    names = sorted(n for n in data.decode("utf-8", "backslashreplace").split("\0") if n)
    return {"untracked": tuple(names[:_MAX_UNTRACKED]), "num_untracked": len(names)}


def _diff(git: _Git, max_bytes: int) -> dict[str, object]:
    """Return the diff of text files, whole files only, and the names of binary ones."""
    data = git(
        "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=dirty",
        "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "HEAD", limit=max_bytes,
    )  # fmt: skip
    is_cut = len(data) > max_bytes
    sections = _SECTION.split(data[:max_bytes].decode("utf-8", "replace"))
    if is_cut:
        sections.pop()  # half a file is of no use, and half a secret has no form
    kept, binary = [], []
    for section in sections:
        if "\nBinary files " in section or "\nGIT binary patch" in section:
            named = _NAMED.match(section)
            binary.append(named[1] if named else section.split("\n", 1)[0])
        else:
            kept.append(section)
    return {"diff": "".join(kept), "is_cut": is_cut, "binary": tuple(binary)}
