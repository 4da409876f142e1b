"""`plait node`: drain nodes, take them back, remove them."""

from __future__ import annotations

from typing import Any, Literal

import anyio
from cyclopts import App

from plait import Client
from plait.cli.options import Options
from plait.cli.output import print_json
from plait.cli.session import with_client

app = App(name="node", help="Drain nodes, take them back, remove them.")

LOOK_S = 0.25
"""Time between two looks at how far a node is."""


@app.command
def drain(node: int, /, *, wait: bool = False, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Have a node hand over what it leads, and its replicas where other nodes can take them.

    Nothing new comes to it. Where there is no other node for a replica it stays, and the node goes on keeping it.

    Parameters
    ----------
    node
        The node's number, as plait cluster status shows it.
    wait
        Return when it leads nothing any more.
    """
    return _change(options, node, "draining", wait=wait)


@app.command
def activate(node: int, /, *, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Take a node back that was drained, or was told to leave and has not gone yet.

    Parameters
    ----------
    node
        The node's number, as plait cluster status shows it.
    """
    return _change(options, node, "active", wait=False)


@app.command
def remove(node: int, /, *, wait: bool = False, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Have a node hand over everything and leave the cluster for good; it may be dead already.

    What it has is copied to other nodes first. Its number is never given again; the machine can come back with an
    empty data directory and --join, as a new node.

    Parameters
    ----------
    node
        The node's number, as plait cluster status shows it.
    wait
        Return when it is gone.
    """
    return _change(options, node, "leaving", wait=wait)


def _change(options: Options, node: int, state: Literal["active", "draining", "leaving"], *, wait: bool) -> int:
    async def work(client: Client) -> None:
        await client.change_node(node, state)
        while wait and not _is_done(await client.cluster_status(), node):  # noqa: ASYNC110 - it is asked over a wire
            await anyio.sleep(LOOK_S)
        if options.json:
            print_json({"node": node, "state": state})
        else:
            print(f"node {node} is {state}" + (", and done" if wait else ""))

    return with_client(options, work)


def _is_done(status: dict[str, Any], node: int) -> bool:
    found = next((each for each in status["nodes"] if each["node"] == node), None)
    return found is None or (found["state"] == "draining" and not found.get("leads"))
