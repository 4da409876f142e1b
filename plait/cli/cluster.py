"""`plait cluster`: how the nodes are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyclopts import App

from plait import Client
from plait.cli.options import Options
from plait.cli.output import print_json, print_table
from plait.cli.session import with_client
from plait.settings import format_size

app = App(name="cluster", help="Show how the nodes of the cluster are.")

COLUMNS = (
    *("node", "name", "state", "address", "leads", "replicas", "under_replicated"),
    *("backlog", "free_disk", "memory", "starts", "up", "version"),
)
LAGGING_COLUMNS = ("partition", "led_by", "lagging_on", "lag_entries")


@app.command
def status(*, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Show all nodes: who is heard, what each leads, what waits there, and which replicas do not keep up."""

    async def work(client: Client) -> None:
        found = await client.cluster_status()
        if options.json:
            print_json(found)
            return
        nodes = found["nodes"]
        title = f"cluster {found['cluster_id']}, catalogue led by node {found['catalogue_leader'] or '-'}"
        print_table([_row(node) for node in nodes], COLUMNS, title)
        lagging = [_lag(node, each) for node in nodes for each in node.get("lagging", ())]
        if lagging:
            print()
            print_table(lagging, LAGGING_COLUMNS)
        for node in nodes:
            for reason in node.get("not_ready", ()):
                print(f"node {node['node']} is not ready: {reason}")

    return with_client(options, work)


def _row(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "node": node["node"],
        "name": node["name"],
        "state": node["state"] if node["heard"] else f"{node['state']}, not heard",
        "address": node["native"] or None,
        "leads": node.get("leads"),
        "replicas": node.get("replicas"),
        "under_replicated": node.get("under_replicated"),
        "backlog": node.get("backlog_records"),
        "free_disk": _size(node.get("disk_free_bytes")),
        "memory": _size(node.get("memory_bytes")),
        "starts": node["incarnation"],
        "up": _duration(node.get("uptime_s")),
        "version": node.get("version"),
    }


def _lag(node: Mapping[str, Any], each: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "partition": each["partition"],
        "led_by": node["node"],
        "lagging_on": each["node"],
        "lag_entries": each["lag_entries"],
    }


def _size(size_bytes: int | None) -> str | None:
    """In whole MiB or GiB: nobody counts bytes here."""
    if size_bytes is None:
        return None
    unit = 1 << 30 if size_bytes >= 10 << 30 else 1 << 20
    return format_size(size_bytes // unit * unit)


def _duration(seconds: int | None) -> str | None:
    """The two largest units: "3d 4h", "12m 5s"."""
    if seconds is None:
        return None
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (parts and len(parts) < 2) or unit == "s":
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(parts)
