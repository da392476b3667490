"""Pickles that call code, in every file that an importer reads; and a watch over what is run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import tarfile

import torch

# What code of a file could do that an import never does.
_WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "exec",
    "compile",
)
_watch = {"on": False, "seen": []}


def _hook(event, arguments):
    if event == "exec" and getattr(arguments[0], "co_filename", "<string>") != "<string>":
        return  # a module of a library is imported
    if event == "compile" and arguments[1] != "<string>":
        return
    if _watch["on"] and event in _WATCHED:
        _watch["seen"].append((event, str(arguments)[:200]))


@contextlib.contextmanager
def watched():
    """Yield a list of what is run meanwhile; a hook cannot be taken away, so it is armed."""
    if not _watch.get("installed"):
        sys.addaudithook(_hook)
        _watch["installed"] = True
    _watch["seen"] = []
    _watch["on"] = True
    try:
        yield _watch["seen"]
    finally:
        _watch["on"] = False


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


class Armed:
    """Runs code when it is filled."""

    def __init__(self, command):
        self.command = command

    def __setstate__(self, state):
        os.system(state["command"])


def calls(marker):
    """Return name -> object that makes the file `marker` when a pickle of it is loaded."""
    command = f"touch {marker}"
    return {
        "os.system": Call(os.system, command),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "__import__": Call(__import__, "antigravity"),
        "setstate": Armed(command),
        "nested": {"a": [(1, {"b": Call(os.system, command)})]},
    }


def opcodes(marker):
    """Return name -> raw pickle that calls `touch` without any help of Python's pickler."""
    command = f"touch {marker}".encode()
    text = b"\x8c" + bytes([len(command)]) + command
    system = b"\x8c\x02os\x8c\x06system\x93"
    return {
        "GLOBAL": b"cos\nsystem\n(S'" + command + b"'\ntR.",
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command + b"'\no.",
        "STACK_GLOBAL": b"\x80\x04" + system + text + b"\x85R.",
        "NEWOBJ": b"\x80\x04" + system + text + b"\x85\x81.",
        "BUILD": b"\x80\x04\x8c\x17support.hostile_pickles\x8c\x05Armed\x93)\x81}\x8c\x07command"
        + text + b"sb.",
        "EXT": b"\x80\x02\x82\x01.",
        "PERSID": b"Pos.system\n.",
        "deep": b"(" * 100_000 + b"t" * 100_000 + b".",
        "long text": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    }  # fmt: skip


def legacy_tar(path, content):
    """Write a file as torch 0.1 did, with `content` for its pickle."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(content) if name == "pickle" else pickle.dumps({})
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def save_all_ways(folder, name, content):
    """Write a hostile content as a zip of torch, an old file of torch, a plain pickle and a tar."""
    state = {"state_dict": {"w": torch.ones(2)}, "more": content}
    torch.save(state, folder / f"{name}.zip.ckpt")
    torch.save(state, folder / f"{name}.old.pth", _use_new_zipfile_serialization=False)
    (folder / f"{name}.plain.pt").write_bytes(pickle.dumps(state))
    legacy_tar(folder / f"{name}.tar.pt", state)
