"""The client processes of the cluster benchmark: prepared, let go at the same moment, and asked how it went."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from plait.cli.bench.broker import environment
from plait.cli.bench.cluster_plan import Orders, Span, Tick
from plait.cli.bench.suite import LoadFailed

SAID_CHARACTERS = 4_000
"""Of what a client wrote to its standard error, when it failed."""


class ClientProcess:
    """One client with its orders."""

    def __init__(self, orders: Orders, profile: Path | None = None) -> None:
        command = [sys.executable, "-m", "plait.cli.bench.cluster_load", msgspec.json.encode(orders).decode()]
        if profile is not None:
            command.append(str(profile))
        self.ticks: list[Tick] = []
        """Where it was when; complete behind `span`."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment({})
        )

    def wait_ready(self) -> None:
        """Wait until it is prepared. Raises LoadFailed."""
        if not self._line().startswith(b'{"ready"'):
            raise self._failure()

    def go(self) -> None:
        """Let it begin. Raises LoadFailed."""
        assert self._process.stdin is not None, "a pipe was asked for"
        try:
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure()

    def enough(self) -> None:
        """Let it come to an end."""
        assert self._process.stdin is not None, "a pipe was asked for"
        self._process.stdin.close()

    def span(self, advance: Callable[[int], None] = lambda more: None) -> Span:
        """Wait for the result; `advance` hears how much more is done. Raises LoadFailed."""
        done = 0
        while (line := self._line()).startswith(b'{"done"'):
            self.ticks.append(msgspec.json.decode(line, type=Tick))
            advance(self.ticks[-1].done - done)
            done = self.ticks[-1].done
        if not line or self._process.wait() != 0:
            raise self._failure()
        return msgspec.json.decode(line, type=Span)

    def close(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "a pipe was asked for"
            pipe.close()
        self._said.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None, "a pipe was asked for"
        return self._process.stdout.readline()

    def _failure(self) -> LoadFailed:
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        return LoadFailed(self._said.read().decode(errors="replace")[-SAID_CHARACTERS:])


@contextmanager
def clients(orders: Sequence[Orders], profiles: Path | None = None) -> Iterator[list[ClientProcess]]:
    """These clients, all of them prepared; none is left behind the block. Raises LoadFailed."""
    with ExitStack() as stack:
        made = []
        for number, each in enumerate(orders):
            profile = None if profiles is None else profiles / f"client-{each.scenario}-{each.name}-{number}.prof"
            made.append(ClientProcess(each, profile))
            stack.callback(made[-1].close)
        for client in made:
            client.wait_ready()
        yield made


def together(spans: Sequence[Span]) -> float:
    """How many per second all have done, from the first beginning to the last end."""
    return sum(span.count for span in spans) / (
        max(span.ended_s for span in spans) - min(span.begun_s for span in spans)
    )


def rate_between(ticks: Sequence[Tick], begin_s: float, end_s: float) -> float:
    """How many per second a client did in a stretch of time, from what it said on the way."""
    return (_done_at(ticks, end_s) - _done_at(ticks, begin_s)) / (end_s - begin_s)


def _done_at(ticks: Sequence[Tick], at_s: float) -> float:
    """How far it was, in between two words in proportion."""
    before = Tick(0, at_s)
    for tick in ticks:
        if tick.at_s >= at_s:
            part = (at_s - before.at_s) / (tick.at_s - before.at_s) if tick.at_s > before.at_s else 1
            return before.done + (tick.done - before.done) * part
        before = tick
    return before.done
