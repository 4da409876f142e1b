"""What `plait topic` and `plait queue` have in common: create, list, describe, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from plait import Client, Description, Queue, Topic, WrongKind
from plait.cli.options import NOT_GIVEN, Options, format_duration
from plait.cli.output import print_json, print_table
from plait.cli.session import usage, with_client
from plait.settings import format_size

Kind = Literal["topic", "queue"]

LIST_COLUMNS = {
    "topic": ("name", "partitions", "records", "bytes"),
    "queue": ("name", "partitions", "backlog", "bytes", "leased", "consumers"),
}
PARTITION_COLUMNS = {
    "topic": (
        *("partition", "start", "end", "backlog_records", "backlog_bytes"),
        *("leader", "replicas", "caught_up", "failure"),
    ),
    "queue": (
        *("partition", "start", "end", "backlog_records", "backlog_bytes", "leased", "consumers"),
        *("leader", "replicas", "caught_up", "failure"),
    ),
}


def create(options: Options, kind: Kind, name: str, given: Mapping[str, Any], more: Sequence[str] | None) -> int:
    """Create, and show what was made."""
    settings = {key: value for key, value in given.items() if value != NOT_GIVEN}
    for text in more or ():
        key, equals, value = text.partition("=")
        if not equals:
            return usage(f"--setting is written NAME=VALUE, not {text!r}")
        settings[key.replace("-", "_")] = _value(value)

    async def work(client: Client) -> None:
        made = await (client.queue(name, **settings) if kind == "queue" else client.topic(name, **settings))
        found = await made.describe()
        if options.json:
            print_json(found.details)
        else:
            print(f"{kind} {name} is there, with {_counted(found.partitions, 'partition')}")

    return with_client(options, work)


def list_all(options: Options, kind: Kind) -> int:
    """A line for each."""

    async def work(client: Client) -> None:
        found = await client.list(kind)
        if options.json:
            print_json([each.details for each in found])
        elif found:
            print_table([_row(each) for each in found], LIST_COLUMNS[kind])
        else:
            print(f"there is no {kind}; make one with: plait {kind} create NAME")

    return with_client(options, work)


def describe(options: Options, kind: Kind, name: str) -> int:
    """Everything about one."""

    async def work(client: Client) -> None:
        item = await _existing(client, kind, name)
        found = await item.describe()
        subscriptions = await item.subscriptions() if isinstance(item, Topic) else []
        if options.json:
            print_json({**found.details, "subscriptions": subscriptions})
            return
        settings = [{"setting": key, "value": _plain(key, value)} for key, value in found.settings.items()]
        print_table(settings, ("setting", "value"), f"{kind} {name}")
        print()
        print_table(_partitions(found), PARTITION_COLUMNS[kind])
        if subscriptions:
            print()
            print_table([_subscription(each) for each in subscriptions], ("subscription", "kind", "lag"))

    return with_client(options, work)


def resize(options: Options, kind: Kind, name: str, partitions: int, replicas: int) -> int:
    """More partitions, or another number of replicas."""
    if not partitions and not replicas:
        return usage("say --partitions, or --replicas, or both")

    async def work(client: Client) -> None:
        await _existing(client, kind, name)
        found = await client.resize(name, partitions=partitions, replicas=replicas)
        if options.json:
            print_json(found.details)
        else:
            print(f"{kind} {name} has {_counted(found.partitions, 'partition')} now")

    return with_client(options, work)


def delete(options: Options, kind: Kind, name: str) -> int:
    """Delete; a name of the other kind is left alone."""

    async def work(client: Client) -> None:
        item = await _existing(client, kind, name)
        await item.delete()
        if options.json:
            print_json({"deleted": name})
        else:
            print(f"{kind} {name} is deleted")

    return with_client(options, work)


async def _existing(client: Client, kind: Kind, name: str) -> Queue | Topic:
    found = await client.describe(name)
    if found.kind != kind:
        raise WrongKind(f"{name} is a {found.kind}, not a {kind}; nothing was done: say plait {found.kind} ...")
    return await (client.queue(name, create=False) if kind == "queue" else client.topic(name, create=False))


def _row(found: Description) -> dict[str, Any]:
    details = _partitions(found)
    return {
        "name": found.name,
        "partitions": found.partitions,
        "records": sum(each["end"] - each["start"] for each in details),
        "backlog": sum(each["backlog_records"] for each in details),
        "bytes": sum(each["backlog_bytes"] for each in details),
        "leased": sum(each["leased"] for each in details),
        "consumers": sum(each.get("consumers", 0) for each in details),
    }


def _partitions(found: Description) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = found.details.get("partitions_detail", [])
    return [
        {
            **each,
            "failure": each.get("failure") or None,
            "replicas": _nodes(each.get("replicas")),
            "caught_up": _nodes(each.get("caught_up")),
        }
        for each in details
    ]


def _nodes(nodes: Sequence[int] | None) -> str | None:
    """Node ids in a column: "1,2,3"."""
    return ",".join(str(node) for node in nodes) if nodes else None


def _subscription(found: Mapping[str, Any]) -> dict[str, Any]:
    lag = found.get("lag_records", found.get("backlog_records"))
    return {"subscription": found["subscription"], "kind": found["kind"], "lag": lag}


def _value(text: str) -> Any:
    """A whole number, none, or the text itself."""
    if text == "none":
        return None
    return int(text) if text.isascii() and text.isdigit() else text


def _plain(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if key.endswith("_ms"):
        return format_duration(value)
    return format_size(value) if key.endswith("_bytes") else str(value)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
