"""The nodes of the replication benchmark as child processes: started, asked, killed, started again."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import trio

from plait.cli.bench.broker import environment, memory_bytes
from plait.cli.bench.raft_plan import Answer, Ask, NodeOrders

STARTED_S = 120.0
"""A node that does not listen by then never will."""
ENDED_S = 30.0
"""A node whose input ended and that has not ended by then is killed."""
READ_BYTES = 64 * 1024
"""Asked of a node's pipe at once."""
SAID_CHARACTERS = 4_000
"""Of a node's log, when it failed."""


class NodeFailed(Exception):
    """A node ended, gave an error or no answer. The text has what it said."""


class NodeProcess:
    """A node; may be started again and again on the same folder and port."""

    def __init__(self, node: int, folder: Path, profiles: Path | None = None) -> None:
        self.node = node
        self.port = 0
        """0 until the first start; then always the one that it got."""
        self._folder = folder
        self._log = folder / "said"
        self._profiles = profiles
        self._starts = 0
        self._process: trio.Process | None = None
        self._asking = trio.Lock()
        self._numbers = count(1)
        self._waiting: dict[int, Any] = {}
        self._answers: dict[int, Answer] = {}
        self._ended = trio.Event()

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        assert self._process is not None, "not started"
        return memory_bytes(self._process.pid)

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it, and wait until it listens. Raises NodeFailed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        profile = ""
        if self._profiles is not None:
            name = f"{self._folder.parent.name}-{self.node}-{self._starts}.prof"
            profile = str((self._profiles / name).resolve())
        orders = NodeOrders(self.node, str(self._folder / "data"), self.port, profile)
        (self._folder / "data").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "plait.cli.bench.raft_main", msgspec.json.encode(orders).decode()]
        with self._log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment({}),
                start_new_session=True,  # Ctrl-C is for the parent alone
            )
        self._ended = trio.Event()
        ready = self._waiting[0] = trio.Event()
        nursery.start_soon(self._listen, self._process)
        self.port = await self._answer(0, ready, STARTED_S)

    async def ask(self, do: str, timeout_s: float = 60.0, **args: Any) -> Any:
        """Ask it, and wait for the answer. Raises NodeFailed."""
        assert self._process is not None, "not started"
        assert self._process.stdin is not None, "a pipe was asked for"
        number = next(self._numbers)
        event = self._waiting[number] = trio.Event()
        try:
            async with self._asking:
                await self._process.stdin.send_all(msgspec.json.encode(Ask(number, do, args)) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._failure("cannot be asked any more")
        return await self._answer(number, event, timeout_s)

    async def stop(self) -> None:
        """Have it end in an orderly way. Raises NodeFailed."""
        if self._process is None:
            return
        assert self._process.stdin is not None, "a pipe was asked for"
        await self._process.stdin.aclose()
        with trio.move_on_after(ENDED_S):
            await self._ended.wait()
            code = await self._process.wait()
            self._process = None
            if code != 0:
                raise self._failure(f"ended with code {code}")
            return
        await self.kill()
        raise self._failure(f"did not end within {ENDED_S:g} s")

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):  # a killed process ends at once
                await process.wait()

    def pause(self) -> None:
        """It stands still, with its connections open, until `resume`."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGCONT)

    async def _answer(self, number: int, event: trio.Event, timeout_s: float) -> Any:
        try:
            with trio.fail_after(timeout_s):
                await event.wait()
        except trio.TooSlowError:
            raise self._failure(f"gave no answer within {timeout_s:g} s")
        finally:
            del self._waiting[number]
        answer = self._answers.pop(number, None)
        if answer is None:
            raise self._failure("ended")
        if answer.error:
            raise self._failure(f"could not do it: {answer.error}")
        return answer.value

    async def _listen(self, process: trio.Process) -> None:
        """Take its answers until it ends; then nobody waits any more."""
        assert process.stdout is not None, "a pipe was asked for"
        rest = b""
        while data := await process.stdout.receive_some(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                answer = msgspec.json.decode(line, type=Answer)
                if answer.id in self._waiting:
                    self._answers[answer.id] = answer
                    self._waiting[answer.id].set()
        self._ended.set()
        for event in self._waiting.values():
            event.set()

    def _failure(self, what: str) -> NodeFailed:
        said = self._log.read_text(errors="replace")[-SAID_CHARACTERS:] if self._log.exists() else ""
        return NodeFailed(f"node {self.node} {what}" + (f"; it said:\n{said}" if said else ""))


class Cluster:
    """Some nodes that are connected with each other."""

    def __init__(self, folder: Path, size: int, nursery: trio.Nursery, profiles: Path | None = None) -> None:
        self.nodes = {node: NodeProcess(node, folder / str(node), profiles) for node in range(1, size + 1)}
        self._nursery = nursery

    async def start(self) -> None:
        """Start all, and connect them."""
        await self._each(lambda node: node.start(self._nursery))
        await self._each(self._connect)

    async def restart(self, node: NodeProcess) -> None:
        """Start one again that was killed, and connect it."""
        await node.start(self._nursery)
        await self._connect(node)

    async def stop(self) -> None:
        """End all in an orderly way."""
        await self._each(lambda node: node.stop())

    async def kill(self) -> None:
        """End all at once."""
        for node in self.nodes.values():
            await node.kill()

    async def ask(self, do: str, timeout_s: float = 60.0, **args: Any) -> dict[int, Any]:
        """Ask all at the same time; the answers by node."""
        answers: dict[int, Any] = {}

        async def one(node: NodeProcess) -> None:
            answers[node.node] = await node.ask(do, timeout_s, **args)

        await self._each(one)
        return {node: answers[node] for node in self.nodes}

    async def _connect(self, node: NodeProcess) -> None:
        ports = {str(other.node): other.port for other in self.nodes.values() if other is not node}
        await node.ask("connect", ports=ports)

    async def _each(self, work: Any) -> None:
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                nursery.start_soon(work, node)


@asynccontextmanager
async def cluster(folder: Path, size: int, profiles: Path | None = None) -> AsyncIterator[Cluster]:
    """A cluster that runs inside the block, and of which nothing is left behind it."""
    async with trio.open_nursery() as nursery:
        made = Cluster(folder, size, nursery, profiles)
        try:
            await made.start()
            yield made
            await made.stop()
        finally:
            await made.kill()
            nursery.cancel_scope.cancel()
