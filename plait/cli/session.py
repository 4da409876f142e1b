"""Running one command's work with a client, and turning whatever ends it into an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import trio

from plait import Client, PlaitError, connect
from plait.cli import exits
from plait.cli.options import Options

NAME = "plait command line"


def with_client(options: Options, work: Callable[[Client], Awaitable[None]]) -> int:
    """Connect, do the work, disconnect. Returns the exit code; an error is one line on standard error."""

    async def connected() -> None:
        async with connect(options.server, namespace=options.namespace, name=NAME) as client:
            await work(client)

    async def bounded() -> None:
        if options.timeout is None:
            await _interruptible(connected)
        else:
            with trio.fail_after(options.timeout):
                await _interruptible(connected)

    try:
        trio.run(bounded)
    except trio.TooSlowError:
        return _end(options, exits.TIMED_OUT, "timed_out", f"not done within {options.timeout:g} s (--timeout)")
    except PlaitError as error:
        return _end(options, exits.of_error(error.code), error.code, error.message)
    except BaseExceptionGroup as group:
        return _grouped(options, group)
    return exits.DONE


async def _interruptible(work: Callable[[], Awaitable[None]]) -> None:
    """Do the work until Ctrl-C, which then raises KeyboardInterrupt here.

    Python would raise it wherever the program happens to be, and where that is a callback it is lost.
    """
    interrupted = False
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_it() -> None:
                nonlocal interrupted
                await signals.__anext__()
                interrupted = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_it)
            await work()
            nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt


def usage(message: str) -> int:
    """The exit code for a command line that makes no sense, after saying why."""
    exits.complain(message)
    return exits.USAGE


def _grouped(options: Options, group: BaseExceptionGroup[BaseException]) -> int:
    """What tasks raised together: an interruption counts first, then Plait's own error; others are defects."""
    causes = list(_leaves(group))
    for cause in causes:
        if isinstance(cause, KeyboardInterrupt | BrokenPipeError):
            raise cause
    for cause in causes:
        if isinstance(cause, PlaitError):
            return _end(options, exits.of_error(cause.code), cause.code, cause.message)
    raise group


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _end(options: Options, exit_code: int, code: str, message: str) -> int:
    if options.json:
        sys.stderr.write(msgspec.json.encode({"error": code, "message": message}).decode() + "\n")
    else:
        exits.complain(f"{message} [{code}]")
    return exit_code
