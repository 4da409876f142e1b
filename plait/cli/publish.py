"""`plait publish`: one message from the command line, or a file of them as a stream."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from plait import BadRequest, Client, Message, Producer, Queue, Topic
from plait.cli.lines import LineInvalid, Lines, message_of
from plait.cli.options import NOT_GIVEN, Options, Size, header_pair
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
    from_: Annotated[str | None, Parameter(name="--from", allow_leading_hyphen=True)] = None,
    ndjson: Annotated[bool, Parameter(negative="")] = False,
    batch: Size = NOT_GIVEN,
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
    pattern = None if ndjson else Message((message or "").encode(), key=key_bytes, headers=headers)
    file = File(descriptor, pattern, partition, BATCH_BYTES if batch in (None, NOT_GIVEN) else batch)

    async def work(client: Client) -> None:
        to = await _target(client, target)
        if message is not None and pattern is not None:
            await _one(to, pattern, partition, options)
        else:
            await _many(to, file, options)

    return with_client(options, work)


@dataclass(frozen=True, slots=True)
class File:
    """A file of messages, and how they are published."""

    descriptor: int
    pattern: Message | None
    """Has the key and headers of all; None: the lines are JSON and have their own."""
    partition: int | None
    batch_bytes: int


async def _one(to: Queue | Topic, message: Message, partition: int | None, options: Options) -> None:
    key, headers = message.key, message.headers
    receipt = await to.publish(message.value, key=key, headers=headers, partition=partition)
    if options.json:
        found = {"partition": receipt.partition, "offset": receipt.offset, "timestamp_ms": receipt.timestamp_ms}
        print_json(found)
    else:
        print(f"published to {to.name}, partition {receipt.partition}, offset {receipt.offset}")


async def _many(to: Queue | Topic, file: File, options: Options) -> None:
    begun = time.perf_counter()
    try:
        async with to.producer(batch_bytes=file.batch_bytes) as producer:
            count = await _stream(producer, file)
    except LineInvalid as error:
        raise BadRequest(f"{error}; the lines before it were published")
    seconds = time.perf_counter() - begun
    if options.json:
        print_json({"published": count, "seconds": round(seconds, 3)})
    else:
        rate = f" ({count / seconds:,.0f} a second)" if seconds else ""
        print(f"published {count:,} messages to {to.name} in {seconds:.2f} s{rate}")


async def _target(client: Client, name: str) -> Queue | Topic:
    found = await client.describe(name)
    if found.kind == "queue":
        return await client.queue(name, create=False)
    return await client.topic(name, create=False)


async def _stream(producer: Producer, file: File) -> int:
    """Send every line. Returns how many messages there were."""
    lines, pattern, partition = Lines(file.descriptor), file.pattern, file.partition
    number = count = 0
    with Progress("publishing", _size(file.descriptor), unit="bytes") as progress:
        while (portion := await lines.next()) is not None:
            for line in portion:
                number += 1
                if pattern is not None:
                    await producer.send(line, pattern.key, pattern.headers or None, None, partition)
                    count += 1
                elif line.strip():
                    await _send(producer, message_of(line, number), partition)
                    count += 1
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
