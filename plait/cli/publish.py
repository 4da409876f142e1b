"""`plait publish`: one message from the command line, or a file of them as a stream."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

from cyclopts import Parameter

from plait import BadRequest, Client, Message, Producer, Queue, Topic
from plait.cli.lines import LineInvalid, Lines, message_of
from plait.cli.options import Options, Size, header_pair
from plait.cli.output import Progress, print_json
from plait.cli.session import usage, with_client
from plait.client.outbox import BATCH_BYTES

STANDARD_INPUT = "-"


def publish(
    target: str,
    message: str | None = None,
    /,
    *,
    key: str | None = None,
    header: Annotated[list[str] | None, Parameter(negative="")] = None,
    partition: int | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    ndjson: Annotated[bool, Parameter(negative="")] = False,
    batch: Size = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> int:
    """Publish to a queue or topic: MESSAGE, or with --from each line of a file.

    It returns when everything is stored and synced. Nothing is published twice, even if the connection breaks.

    Parameters
    ----------
    target
        The queue or topic.
    message
        The text to publish; left out, --from says where messages come from.
    key
        Messages of one key go to one partition, in order.
    header
        A header, as NAME=VALUE; may be given again.
    partition
        The partition, by number.
    from_
        A file with a message on each line; - is standard input.
    ndjson
        Each line is JSON: {"value": ..., "key": ..., "headers": {...}}, as `plait consume --json` prints it.
    batch
        Bytes of the batches in which many messages travel. Default 128KiB.
    """
    if (message is None) == (from_ is None):
        return usage("say what to publish: either MESSAGE, or --from FILE (- is standard input)")
    if ndjson and (from_ is None or key is not None or header):
        return usage("--ndjson goes with --from, and keys and headers are in its lines")
    try:
        headers = [header_pair(text) for text in header or ()]
        descriptor = _opened(from_)
    except (ValueError, OSError) as error:
        return usage(str(error))
    key_bytes = None if key is None else key.encode()

    async def work(client: Client) -> None:
        to = await _target(client, target)
        if message is not None:
            receipt = await to.publish(message.encode(), key=key_bytes, headers=headers, partition=partition)
            if options.json:
                found = {"partition": receipt.partition, "offset": receipt.offset}
                print_json({**found, "timestamp_ms": receipt.timestamp_ms})
            else:
                print(f"published to {target}, partition {receipt.partition}, offset {receipt.offset}")
            return
        begun = time.perf_counter()
        pattern = None if ndjson else Message(b"", key=key_bytes, headers=headers)
        try:
            async with to.producer(batch_bytes=batch or BATCH_BYTES) as producer:
                count = await _stream(producer, Lines(descriptor), pattern, partition, _size(descriptor))
        except LineInvalid as error:
            raise BadRequest(f"{error}; the lines before it were published")
        _report(options, target, count, time.perf_counter() - begun)

    return with_client(options, work)


async def _target(client: Client, name: str) -> Queue | Topic:
    found = await client.describe(name)
    if found.kind == "queue":
        return await client.queue(name, create=False)
    return await client.topic(name, create=False)


async def _stream(
    producer: Producer, lines: Lines, pattern: Message | None, partition: int | None, size: int | None
) -> int:
    """Send every line; `pattern` has their common key and headers, None means NDJSON. Returns their number."""
    count = 0
    with Progress("publishing", size, unit="bytes") as progress:
        while (portion := await lines.next()) is not None:
            if pattern is None:
                for line in portion:
                    count += 1
                    if line.strip():
                        await _send(producer, message_of(line, count), partition)
            else:
                for line in portion:
                    await producer.send(line, pattern.key, pattern.headers or None, None, partition)
                count += len(portion)
            progress.advance(sum(map(len, portion)) + len(portion))
        await producer.flush()
    return count


async def _send(producer: Producer, message: Message, partition: int | None) -> None:
    await producer.send(message.value, message.key, message.headers, message.timestamp_ms, partition)


def _opened(path: str | None) -> int:
    if path is None or path == STANDARD_INPUT:
        return sys.stdin.fileno()
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _size(descriptor: int) -> int | None:
    """Bytes of a file, for the progress bar; None for a pipe."""
    return os.fstat(descriptor).st_size or None


def _report(options: Options, target: str, count: int, seconds: float) -> None:
    if options.json:
        print_json({"published": count, "seconds": round(seconds, 3)})
        return
    rate = f"{count / seconds:,.0f} a second" if seconds else ""
    print(f"published {count:,} messages to {target} in {seconds:.2f} s ({rate})")
