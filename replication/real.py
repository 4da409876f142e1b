"""The environment interfaces on a real machine. The one module of the server that touches it directly."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, TypeVar, cast

import trio

from replication.environment import Buffer, Environment, Memory

T = TypeVar("T")
LISTEN_BACKLOG_CONNECTIONS = 1024
"""Connections that the kernel keeps for a listener which has not accepted them yet."""
PWRITEV_PARTS_MAX = 512
"""Buffers handed to the kernel in one call (Linux's IOV_MAX is 1,024)."""


class RealClock:
    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, deadline_ns: int) -> None:
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110 - the clock decides
            await trio.sleep(left_ns / 1e9)


class RealFile:
    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pread(self, size_bytes: int, position: int) -> bytes:
        first = os.pread(self._descriptor, size_bytes, position)
        if len(first) == size_bytes or not first:
            return first
        parts = [first]
        got = len(first)
        while got < size_bytes and (part := os.pread(self._descriptor, size_bytes - got, position + got)):
            parts.append(part)
            got += len(part)
        return b"".join(parts)

    def pwrite(self, parts: Sequence[Buffer], position: int) -> None:
        for start in range(0, len(parts), PWRITEV_PARTS_MAX):
            position = self._pwrite_some(parts[start : start + PWRITEV_PARTS_MAX], position)

    def _pwrite_some(self, parts: Sequence[Buffer], position: int) -> int:
        total = sum(len(part) for part in parts)
        written = os.pwritev(self._descriptor, parts, position)
        if written < total:  # rare: continue behind a short write with one joined buffer
            rest = memoryview(b"".join(parts))[written:]
            while rest:
                more = os.pwrite(self._descriptor, rest, position + written)
                written += more
                rest = rest[more:]
        return position + total

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class RealDisk:
    """A data directory; it is created when missing."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        os.makedirs(self.root, exist_ok=True)
        self._locks: dict[str, int] = {}

    def create(self, name: str, size_bytes: int = 0) -> RealFile:
        descriptor = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            if size_bytes:
                os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError:
            os.close(descriptor)
            os.unlink(self._path(name))
            raise
        return RealFile(descriptor)

    def open(self, name: str) -> RealFile:
        return RealFile(os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC))

    def list(self, folder: str) -> list[str]:
        try:
            with os.scandir(self._path(folder)) as found:
                return sorted(item.name for item in found if item.is_file())
        except FileNotFoundError:
            return []

    def make_folder(self, folder: str) -> None:
        os.makedirs(self._path(folder), exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.replace(self._path(source), self._path(target))

    def unlink(self, name: str) -> None:
        os.unlink(self._path(name))

    def sync_folder(self, folder: str) -> None:
        descriptor = os.open(self._path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def lock(self, name: str) -> None:
        descriptor = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._locks[name] = descriptor

    def unlock(self, name: str) -> None:
        os.close(self._locks.pop(name))

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)


class RealNetwork:
    async def listen(self, host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=LISTEN_BACKLOG_CONNECTIONS)
        return cast("Sequence[trio.abc.Listener[trio.abc.Stream]]", listeners)

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def address_of(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        address = cast("trio.SocketListener", listener).socket.getsockname()
        return str(address[0]), int(address[1])


class RealTasks:
    """Tasks in one nursery, threads in lanes of one."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._lanes: dict[str, trio.CapacityLimiter] = {}

    def spawn(self, name: str, run: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(run, *args, name=name)

    async def offload(self, lane: str, work: Callable[[], T]) -> T:
        limiter = self._lanes.get(lane)
        if limiter is None:
            limiter = self._lanes[lane] = trio.CapacityLimiter(1)
        return await trio.to_thread.run_sync(work, limiter=limiter)


def real_memory() -> Memory:
    """From the kernel: resident bytes of this process, and of the machine, or of the container that it is in."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/statm", "rb") as status:
        resident_pages = int(status.read().split()[1])
    return Memory(resident_pages * page_bytes, _machine_bytes())


@cache
def _machine_bytes() -> int:
    whole_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit_bytes = memory_limit_bytes("/proc/self/cgroup", "/sys/fs/cgroup")
    return min(whole_bytes, limit_bytes) if limit_bytes else whole_bytes


def memory_limit_bytes(own: str, tree: str) -> int:
    """The tightest limit of the control groups (cgroups(7)) that this process is in; 0: none is known.

    `own` lists them, as `number:controllers:path`; their files are in the `tree`, which in a container begins with
    its own group. Version 2 has all controllers in one tree, version 1 a tree for each.
    """
    limits = []
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = f"{tree}/{controllers}" if controllers else tree
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            found = _text("/".join([folder, *parts[:depth], name])).strip()
            limits += [int(found)] if found.isdigit() else []  # "max": none
    return min(limits, default=0)


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:  # it need not be there
        return ""


def real_environment(data_folder: str, nursery: trio.Nursery) -> Environment:
    """The environment of a process that keeps its data in `data_folder`. Raises OSError if it cannot."""
    return Environment(
        clock=RealClock(),
        random=random.Random(secrets.randbits(256)),
        disk=RealDisk(data_folder),
        network=RealNetwork(),
        tasks=RealTasks(nursery),
        memory=real_memory,
    )
