"""How a command ends: exit codes that scripts can rely on, and the one line that people read.

0    done
1    the broker answered with an error, or could not be started
2    the command line or a setting is wrong
3    the broker cannot be reached
4    the time allowed ran out
130  interrupted
"""

from __future__ import annotations

import os
import sys

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
TIMED_OUT = 4
INTERRUPTED = 130

CODES_OF_ERRORS = {"unavailable": UNREACHABLE, "timed_out": TIMED_OUT}
"""Exit codes of the errors (by stable code) that do not mean that the broker answered."""


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"plait: {message}", file=sys.stderr)


def of_error(code: str) -> int:
    """The exit code for an error of the client."""
    return CODES_OF_ERRORS.get(code, FAILED)


def drop_output() -> None:
    """Make what is still in the buffer of standard output vanish: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
