"""Three brokers as three processes: started, stopped, killed, and started again on the same addresses and data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import anyio

import plait
from tests.integration.clusters import free_port

ROOT = Path(__file__).resolve().parents[2]
NODES = (1, 2, 3)
READY_LIMIT_S = 40.0
"""Nodes that are not ready by then do not start."""
PAGE_S = 20.0
"""Longest that a page may take."""


class Brokers:
    """The processes, which can be killed and started again on the same addresses and data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.native = {node: f"127.0.0.1:{free_port()}" for node in NODES}
        self.http = {node: f"127.0.0.1:{free_port()}" for node in NODES}
        self.peers = {node: f"127.0.0.1:{free_port()}" for node in NODES}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.secrets: dict[int, str] = {}
        """The cluster's secret, as each node is told it."""

    @property
    def addresses(self) -> str:
        return ",".join(self.native.values())

    def begin(self, *nodes: int) -> None:
        """Start nodes; they are ready in a while."""
        for node in nodes:
            self._ready(node).unlink(missing_ok=True)
            self._processes[node] = self.spawn(node)

    async def start(self, *nodes: int) -> None:
        """Start nodes, and wait until clients are welcome."""
        self.begin(*nodes)
        with anyio.fail_after(READY_LIMIT_S):
            for node in nodes:
                while not self._ready(node).exists():
                    assert self._processes[node].poll() is None, (self._folder / f"log-{node}").read_text()
                    await anyio.sleep(0.01)
                assert json.loads(self._ready(node).read_text())["node_id"] == node

    async def stop(self, node: int) -> str:
        """End a node in an orderly way; what it has logged."""
        process = self._processes.pop(node)
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0, self.log(node)
        return self.log(node)

    async def ended(self, node: int) -> int:
        """The exit code of a node that ends by itself."""
        return await ended(self._processes.pop(node))

    def log(self, node: int) -> str:
        """What a node has said, in all its lives."""
        return (self._folder / f"log-{node}").read_text()

    async def page(self, node: int, path: str) -> tuple[int, Any]:
        """(status, document) of one of a node's pages; (0, None): nobody is there."""
        return await anyio.to_thread.run_sync(page, f"http://{self.http[node]}{path}")

    def kill(self, node: int) -> None:
        process = self._processes.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        for node in list(self._processes):
            self.kill(node)

    async def leader(self) -> int:
        """The node that serves."""
        async with plait.connect(self.addresses) as client:
            detail = (await client.describe("orders")).details["partitions_detail"][0]
        return int(detail["leader"])

    def _ready(self, node: int) -> Path:
        return self._folder / f"ready-{node}.json"

    def spawn(self, node: int) -> subprocess.Popen[bytes]:
        options = {
            "--native": self.native[node],
            "--http": self.http[node],
            "--data": str(self._folder / f"data-{node}"),
            "--ready-file": str(self._ready(node)),
            "--peer": self.peers[node],
            "--initial": ",".join(self.peers.values()),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "plait", "serve", *(word for option in options.items() for word in option)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PLAIT_CLUSTER_SECRET": self.secrets.get(node, "")},
            stderr=(self._folder / f"log-{node}").open("ab"),
        )


def page(address: str) -> tuple[int, Any]:
    """(status, document), or (0, None) where nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=PAGE_S) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    except OSError:
        return 0, None
    return status, json.loads(body) if body.startswith(b"{") else body.decode()


async def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a node that ends by itself."""
    with anyio.fail_after(READY_LIMIT_S):
        while process.poll() is None:  # noqa: ASYNC110 - a process sets no event
            await anyio.sleep(0.01)
    assert process.returncode is not None
    return process.returncode
