"""`plait topic`: create, list, describe and delete topics."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from plait.cli import naming
from plait.cli.options import NOT_GIVEN, Duration, Options, Size

app = App(name="topic", help="Create, list, describe and delete topics.")


@app.command
def create(
    name: str,
    /,
    *,
    partitions: int | None = None,
    retention: Duration = NOT_GIVEN,
    retention_bytes: Size = NOT_GIVEN,
    max_record_bytes: Size = NOT_GIVEN,
    setting: Annotated[list[str] | None, Parameter(negative="")] = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> int:
    """Create a topic; no error if there is one with the same settings.

    Parameters
    ----------
    name
        Letters, digits, dots, dashes and underscores.
    partitions
        How many partitions share the load; order holds within each. Default 1.
    retention
        How long records are kept: 250ms, 30s, 15m, 12h, 7d, or none for ever. Default 7d.
    retention_bytes
        Bytes per partition beyond which the oldest records go. Default none.
    max_record_bytes
        Largest record. Default: the broker's limit.
    setting
        Any other setting of a topic, as NAME=VALUE; may be given again.
    """
    given = {
        "partitions": NOT_GIVEN if partitions is None else partitions,
        "retention_ms": retention,
        "retention_bytes": retention_bytes,
        "max_record_bytes": max_record_bytes,
    }
    return naming.create(options, "topic", name, given, setting)


@app.command(name="list")
def list_(*, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """List all topics."""
    return naming.list_all(options, "topic")


@app.command
def describe(name: str, /, *, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Show a topic: its settings, its partitions, and its subscriptions with their lag."""
    return naming.describe(options, "topic", name)


@app.command
def resize(
    name: str,
    /,
    *,
    partitions: int = 0,
    replicas: int = 0,
    options: Options = Options(),  # noqa: B008 - frozen
) -> int:
    """Give a topic more partitions, or another number of replicas, while it serves.

    Parameters
    ----------
    partitions
        How many it is to have: more than now. Keys may go to other partitions from then on.
    replicas
        Copies of each partition, on as many nodes.
    """
    return naming.resize(options, "topic", name, partitions, replicas)


@app.command
def delete(name: str, /, *, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Delete a topic with everything in it."""
    return naming.delete(options, "topic", name)
