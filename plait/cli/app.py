"""The tree of commands, and how each of them ends.

Commands are named by module and imported when they are called, so that each starts as fast as it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from plait.cli import exits
from plait.version import __version__

GLOBAL_FLAGS = {"--server": True, "--namespace": True, "--timeout": True, "--json": False}
"""Flags that may also stand before the command, and whether a value follows."""


def build() -> App:
    """The command line of `plait`."""
    app = App(
        name="plait",
        help="Plait, a distributed message broker: run one, and work with its topics and queues.",
        help_epilogue=(
            "Exit codes: 0 done, 1 the broker answered with an error, 2 wrong usage, "
            "3 broker not reached, 4 timed out, 130 interrupted."
        ),
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    app.command(_serve, name="serve")
    app.command("plait.cli.topics:app", name="topic", help="Create, list, describe and delete topics.")
    app.command("plait.cli.queues:app", name="queue", help="Create, list, describe and delete queues.")
    app.command("plait.cli.cluster:app", name="cluster", help="Show how the nodes of the cluster are.")
    app.command("plait.cli.nodes:app", name="node", help="Drain nodes, take them back, remove them.")
    app.command("plait.cli.groups:app", name="group", help="List and describe consumer groups.")
    app.command("plait.cli.publish:publish", name="publish", help="Publish messages: one, or a file of them.")
    app.command("plait.cli.consume:consume", name="consume", help="Print the messages of a queue or topic.")
    app.command("plait.cli.bench.command:app", name="bench", help="Measure a broker on this machine.")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name. Returns the exit code; prints what people need to know."""
    try:
        result = build()(hoisted(arguments))
    except CycloptsError:  # it has said what is wrong
        return exits.USAGE
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        exits.drop_output()
        return exits.DONE
    return result if isinstance(result, int) else exits.DONE


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Global flags that stand before the command, moved to where the command takes them."""
    rest = list(arguments)
    front: list[str] = []
    while rest and rest[0].partition("=")[0] in GLOBAL_FLAGS:
        flag = rest.pop(0)
        front.append(flag)
        if GLOBAL_FLAGS[flag.partition("=")[0]] and "=" not in flag and rest:
            front.append(rest.pop(0))
    end = rest.index("--") if "--" in rest else len(rest)
    return rest[:end] + front + rest[end:]


def _serve(*flags: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> int:
    """Run a broker; `plait serve --help` shows its settings."""
    from plait.cli.main import main

    return main(["serve", *flags])
