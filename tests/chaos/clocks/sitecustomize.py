"""A wall clock that can be wrong: Python runs this before anything else when this folder is on its path.

A broker that is started with CHAOS_CLOCK's file gets its time of day plus what the file says, from the moment
at which it says so: eight bytes, nanoseconds. The monotonic clock is as it is. See tests/chaos/boxes.py.
"""

from __future__ import annotations

import mmap
import os
import time
from struct import Struct

OFFSET = Struct("<q")
FILE = os.environ.pop("CHAOS_CLOCK", "")


def set_wrong(path: str) -> None:
    """From now on."""
    with open(path, "rb") as file:
        offset = mmap.mmap(file.fileno(), OFFSET.size, access=mmap.ACCESS_READ)
    right_ns = time.time_ns

    def time_ns() -> int:
        found: int = right_ns() + OFFSET.unpack_from(offset)[0]
        return found

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if FILE:
    set_wrong(FILE)
