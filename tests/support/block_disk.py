"""A disk that remembers every block written to it: one file in a FUSE file system of its own.

Run as `python -m support.block_disk MOUNTPOINT IMAGE LOG`. The kernel's protocol is spoken directly, so
nothing has to be installed (linux/fuse.h; version 7.31 is enough). The log holds, in the order of
arrival, each write as (offset, length, bytes) and each flush as (FLUSH, 0).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

NAME = b"disk"
FLUSH = (1 << 64) - 1
RECORD = struct.Struct("<QI")
_HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_MAX_WRITE = 1 << 20
_VALID_SECONDS = 3600
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 1, 2, 3, 4, 14, 15, 16
_STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT, _BATCH_FORGET = 17, 18, 20, 25, 26, 42
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_ROOT, _FILE = 1, 2


class BlockDisk:
    """Serves one file; every write to it is logged before it is answered."""

    def __init__(self, image, log):
        with open(image, "rb") as file:  # noqa: PTH123
            self._data = bytearray(file.read())
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._answers = {
            _INIT: self._init,
            _LOOKUP: self._look_up,
            _GETATTR: lambda node, _: struct.pack("<QII", _VALID_SECONDS, 0, 0) + self._facts(node),
            _SETATTR: lambda node, _: struct.pack("<QII", _VALID_SECONDS, 0, 0) + self._facts(node),
            _OPEN: lambda *_: struct.pack("<QII", 0, 0, 0),
            _READ: self._read,
            _WRITE: self._write,
            _FSYNC: self._flush,
            _FLUSH: lambda *_: b"",
            _RELEASE: lambda *_: b"",
            _STATFS: lambda *_: bytes(80),
        }

    def serve(self, device):
        """Answer requests until the file system is unmounted."""
        while True:
            try:
                request = os.read(device, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                raise
            _, code, unique, node, *_ = _HEADER.unpack_from(request)
            if code in (_FORGET, _BATCH_FORGET):
                continue
            answer = self._answers.get(code)
            found = -errno.ENOSYS if answer is None else answer(node, request[_HEADER.size :])
            body, status = (b"", found) if isinstance(found, int) else (found, 0)
            os.write(device, _REPLY.pack(_REPLY.size + len(body), status, unique) + body)

    def _init(self, _, __):
        flags = _BIG_WRITES | _MAX_PAGES
        out = struct.pack("<IIIIHHIIHHI", 7, 31, 0, flags, 16, 12, _MAX_WRITE, 1, 256, 0, 0)
        return out + bytes(64 - len(out))

    def _look_up(self, _, body):
        if body.rstrip(b"\0") != NAME:
            return -errno.ENOENT
        entry = struct.pack("<QQQQII", _FILE, 0, _VALID_SECONDS, _VALID_SECONDS, 0, 0)
        return entry + self._facts(_FILE)

    def _facts(self, node):
        size = len(self._data) if node == _FILE else 0
        mode = stat.S_IFREG | 0o600 if node == _FILE else stat.S_IFDIR | 0o700
        return _ATTRIBUTES.pack(node, size, size // 512, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)

    def _read(self, _, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self._data[offset : offset + size])

    def _write(self, _, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        data = body[40 : 40 + size]
        os.write(self._log, RECORD.pack(offset, size) + data)
        self._data[offset : offset + size] = data
        return struct.pack("<II", size, 0)

    def _flush(self, _, __):
        os.write(self._log, RECORD.pack(FLUSH, 0))
        return b""


def mount(mountpoint):
    """Mount an empty FUSE file system; returns the descriptor at which its requests arrive.

    Raises: OSError of the system.
    """
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"weightslab", os.fsencode(mountpoint), b"fuse", 0, options):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return device


def main():
    mountpoint, image, log = sys.argv[1:]
    disk = BlockDisk(image, log)
    device = mount(mountpoint)
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    disk.serve(device)


if __name__ == "__main__":
    main()
