"""A disk for each node that can be full, slow, or read-only, and is still there when the node's process is not.

    loop    ext4 in a file in memory, as a loop device: all of it (needs root, Linux)
    folder  a plain folder: nothing can be done to it

A disk that has become read-only stays so, as after an error of the device, until it is mounted anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from random import Random

DISK_MEBIBYTES = 160
"""Size of a node's disk."""
THROTTLES = Path("/sys/fs/cgroup/blkio")
"""Where writes of some processes to some devices can be slowed down."""
BALLAST = "ballast-of-chaos"
"""File that fills a disk."""
FREE_BYTES_MAX = 24 << 20
"""A disk that is full has less than this."""


def run(*command: str) -> None:
    """Raises OSError with what the command said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(command)} does not end") from error
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class Shelf:
    """Where the disks are: memory, if this user may have it so; and whether there are real ones."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder / "disks"
        self.folder.mkdir(parents=True)
        self.why_not = ""
        """Why there are no real disks."""
        self.why_not_slow = ""
        """Why they cannot be made slow."""
        self.disks: list[Disk] = []
        size = nodes * DISK_MEBIBYTES + 16
        try:
            if os.geteuid() != 0:
                raise OSError("only root can mount disks")
            run("mount", "-t", "tmpfs", "-o", f"size={size}m", "plait-chaos", str(self.folder))
            self.new_disk("try").close()
        except OSError as error:
            self.why_not = str(error)
        if self.why_not or not (THROTTLES / "blkio.throttle.write_iops_device").exists():
            self.why_not_slow = self.why_not or f"{THROTTLES} has no throttle of writes"

    def new_disk(self, name: str) -> Disk:
        """An empty one."""
        disk = Disk(self.folder, name, real=not self.why_not, throttled=not self.why_not_slow)
        self.disks.append(disk)
        return disk

    def close(self) -> None:
        """Take all of it away; nobody uses it any more."""
        for disk in self.disks:
            disk.close()
        with suppress(OSError):
            run("umount", "-l", str(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)


class Disk:
    """Of one node."""

    def __init__(self, shelf: Path, name: str, *, real: bool, throttled: bool) -> None:
        self.folder = shelf / name
        self._image = shelf / f"{name}.image"
        self._real = real
        self._group = THROTTLES / f"plait-chaos-{os.getpid()}-{name}" if throttled else None
        self.folder.mkdir()
        self.erase()
        if self._group is not None:
            self._group.mkdir(exist_ok=True)

    def erase(self) -> None:
        """A new disk, with nothing on it. The process is dead."""
        if not self._real:
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            return
        self._unmount()
        with self._image.open("wb") as image:
            image.truncate(DISK_MEBIBYTES << 20)
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", str(self._image))
        self._mount()

    def fill(self, random: Random) -> int:
        """Leave little or nothing free. Returns the bytes that are left."""
        left = random.choice((0, 0, random.randrange(FREE_BYTES_MAX)))
        free = self.free_bytes()
        with suppress(OSError), (self.folder / BALLAST).open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, free - left))
        return self.free_bytes()

    def free(self) -> None:
        """Take away what filled it."""
        with suppress(OSError):
            (self.folder / BALLAST).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Room that is left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def break_down(self) -> None:
        """Nothing is written any more, whoever has a file open: the file system has met an error, and gave up."""
        run("mount", "-o", "remount,abort", str(self.folder))

    def mend(self) -> None:
        """Mount it anew, as a machine does that starts. The process is dead."""
        if self._real:
            self._unmount()
            self._mount()

    def hold(self, pid: int) -> None:
        """A process whose writes can be slowed down from now on."""
        if self._group is not None:
            with suppress(ProcessLookupError):
                (self._group / "cgroup.procs").write_text(str(pid))

    def slow_down(self, writes_per_s: int) -> None:
        """So many writes a second; 0: as many as there are."""
        if self._group is None:
            return
        device = os.stat(self.folder).st_dev
        rule = f"{os.major(device)}:{os.minor(device)} {writes_per_s}"
        (self._group / "blkio.throttle.write_iops_device").write_text(rule)

    def close(self) -> None:
        """Take it away."""
        if self._group is not None:
            with suppress(OSError):
                self._group.rmdir()
        if self._real:
            with suppress(OSError):
                self._unmount()

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.folder))

    def _unmount(self) -> None:
        if os.path.ismount(self.folder):
            run("umount", str(self.folder))
