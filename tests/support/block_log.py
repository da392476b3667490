"""ext4 on a disk that logs its blocks, and the file systems that a power loss leaves of it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from support.block_disk import FLUSH, RECORD

IMAGE_BYTES = 32 << 20
TESTS = Path(__file__).parents[1]


def why_not_here():
    """Return why no ext4 can be made on a logged disk; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting a file system takes root on Linux"
    missing = [tool for tool in ("mkfs.ext4", "losetup", "mount") if shutil.which(tool) is None]
    missing += [path for path in ("/dev/fuse", "/dev/loop-control") if not Path(path).exists()]
    if missing:
        return f"there is no {', '.join(missing)}"
    probe = subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return None if probe.returncode == 0 else f"mounting is not allowed here: {probe.stderr:.100}"


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(image, folder):
    """Mount an ext4 image at `folder`."""
    folder.mkdir(exist_ok=True)
    device = _run("losetup", "--find", "--show", str(image))
    try:
        _run("mount", "-t", "ext4", "-o", "noatime", device, str(folder))
        try:
            yield folder
        finally:
            _run("umount", str(folder))
    finally:
        _run("losetup", "--detach", device)


class LoggedDisk:
    """An ext4 file system whose blocks are logged from the moment it is opened.

    Args:
        folder: an empty folder.
        fill: called with the folder of the new file system, before anything is logged.
    """

    def __init__(self, folder, fill):
        self.log = folder / "blocks.log"
        self._folder = folder
        self._image = folder / "base.img"
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
        _run("mkfs.ext4", "-q", "-b4096", "-Jsize=4", "-E", options, str(self._image))
        with mounted(self._image, folder / "mnt") as place:
            fill(place)

    @contextlib.contextmanager
    def opened(self):
        """Mount the file system over the logged disk; yields its folder."""
        fuse = self._folder / "fuse"
        fuse.mkdir()
        command = [sys.executable, "-m", "support.block_disk", fuse, self._image, self.log]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TESTS)}
        )
        try:
            if server.stdout.readline() != b"mounted\n":
                raise OSError("the FUSE file system could not be mounted")
            try:
                with mounted(fuse / "disk", self._folder / "mnt") as place:
                    yield place
            finally:
                _run("umount", str(fuse))
        finally:
            server.wait(timeout=60)
            server.stdout.close()

    def events(self):
        """Return (position in the log after it, offset or FLUSH, bytes) of all that was logged."""
        data, at, found = self.log.read_bytes(), 0, []
        while at < len(data):
            offset, size = RECORD.unpack_from(data, at)
            at += RECORD.size + size
            found.append((at, offset, data[at - size : at]))
        return found

    def num_images(self):
        """Return how many states `images` yields."""
        return 1 + sum(1 if offset == FLUSH else 2 for _, offset, _ in self.events())

    def images(self, seed=0):
        """Yield (position in the log, image) for a power loss after each write; to be used at once.

        Once with all that was written by then, and once with what was written before the last flush
        and a random half of what came after it: a disk may keep back anything until it is flushed.
        """
        chance, pending = random.Random(seed), []
        certain = bytearray(self._image.read_bytes())
        yield 0, certain
        for position, offset, data in self.events():
            if offset == FLUSH:
                _put(certain, pending)
                pending = []
                yield position, certain
                continue
            pending.append((offset, data))
            for chosen in (pending, [write for write in pending if chance.random() < 0.5]):
                image = bytearray(certain)
                _put(image, chosen)
                yield position, image


def _put(image, writes):
    for offset, data in writes:
        image[offset : offset + len(data)] = data
