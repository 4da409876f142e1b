"""The console script `plait`.

`plait serve` is started on a short way, without the library that parses the other commands: that one and what
it imports take 0.1 s, a third of the time in which a broker has to be ready.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from plait.cli import exits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (plait.cli.exits)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        return _serve(given[1:])
    from plait.cli.app import run

    return run(given)


def _serve(arguments: Sequence[str]) -> int:
    from plait.settings import SettingsError, help_text, load

    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        return exits.DONE
    try:
        settings = load(arguments, os.environ)
    except SettingsError as error:
        exits.complain(str(error))
        return exits.USAGE
    from plait.serve import serve

    return serve(settings)
