"""`plait queue`: create, list, describe and delete queues."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from plait.cli import naming
from plait.cli.options import NOT_GIVEN, Duration, Options, Size

app = App(name="queue", help="Create, list, describe and delete queues.")


@app.command
def create(
    name: str,
    /,
    *,
    partitions: int | None = None,
    lease: Duration = NOT_GIVEN,
    max_deliveries: int | None = None,
    max_backlog_records: int | None = None,
    max_backlog_bytes: Size = NOT_GIVEN,
    overflow: Literal["refuse", "block", "drop-oldest", "dead-letter"] | None = None,
    dead_letter: str | None = None,
    max_record_bytes: Size = NOT_GIVEN,
    setting: Annotated[list[str] | None, Parameter(negative="")] = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> int:
    """Create a queue; no error if there is one with the same settings.

    Parameters
    ----------
    name
        Letters, digits, dots, dashes and underscores.
    partitions
        More than one: order and limits hold within each. Default 1.
    lease
        How long a consumer has a message before others get it: 250ms, 30s, 15m, 12h. Default 30s.
    max_deliveries
        Deliveries after which a message goes to the dead-letter queue. Default none.
    max_backlog_records
        Messages per partition that may wait. Default none.
    max_backlog_bytes
        Bytes per partition that may wait. Default none.
    overflow
        What a publish to a full queue meets. Default refuse.
    dead_letter
        The queue that takes what this one gives up.
    max_record_bytes
        Largest record. Default: the broker's limit.
    setting
        Any other setting of a queue, as NAME=VALUE; may be given again.
    """
    given = {
        "partitions": NOT_GIVEN if partitions is None else partitions,
        "lease_ms": lease,
        "max_deliveries": NOT_GIVEN if max_deliveries is None else max_deliveries,
        "max_backlog_records": NOT_GIVEN if max_backlog_records is None else max_backlog_records,
        "max_backlog_bytes": max_backlog_bytes,
        "overflow": NOT_GIVEN if overflow is None else overflow,
        "dead_letter": NOT_GIVEN if dead_letter is None else dead_letter,
        "max_record_bytes": max_record_bytes,
    }
    return naming.create(options, "queue", name, given, setting)


@app.command(name="list")
def list_(*, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """List all queues with what waits in them."""
    return naming.list_all(options, "queue")


@app.command
def describe(name: str, /, *, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Show a queue: its settings, its backlog and its leases."""
    return naming.describe(options, "queue", name)


@app.command
def resize(
    name: str,
    /,
    *,
    partitions: int = 0,
    replicas: int = 0,
    options: Options = Options(),  # noqa: B008 - frozen
) -> int:
    """Give a queue more partitions, or another number of replicas, while it serves.

    Parameters
    ----------
    partitions
        How many it is to have: more than now. Keys may go to other partitions from then on.
    replicas
        Copies of each partition, on as many nodes.
    """
    return naming.resize(options, "queue", name, partitions, replicas)


@app.command
def delete(name: str, /, *, options: Options = Options()) -> int:  # noqa: B008 - frozen
    """Delete a queue with everything in it."""
    return naming.delete(options, "queue", name)
