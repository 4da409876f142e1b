"""How much room the disk has left, and a ballast to throw off when it has none."""

from __future__ import annotations

import errno
from typing import Literal

from replication.environment import Disk
from replication.storage.settings import StorageSettings

BALLAST = "ballast"
Pressure = Literal["none", "busy", "low", "critical"]
"""busy: flushing falls behind. low: publishing should stop. critical: only what frees space should go on."""


class Space:
    """The disk's free space. All methods block."""

    def __init__(self, disk: Disk, settings: StorageSettings) -> None:
        self._disk = disk
        self._settings = settings
        self._has_ballast = BALLAST in disk.list("")
        self.pressure: Pressure = "none"
        self.free_bytes = 0
        """As of the last look."""

    def look(self) -> None:
        """Measure, and take in ballast again when there is plenty of room. Raises OSError."""
        settings = self._settings
        free_bytes = self.free_bytes = self._disk.free_bytes()
        if free_bytes < settings.critical_space_bytes:
            self.pressure = "critical"
        elif free_bytes < settings.low_space_bytes:
            self.pressure = "low"
        else:
            self.pressure = "none"
            wanted = settings.ballast_bytes
            if wanted and not self._has_ballast and free_bytes > settings.low_space_bytes + 2 * wanted:
                self._take_ballast(wanted)

    def free(self) -> bool:
        """The disk is full: throw the ballast off. True if there was any."""
        self.pressure = "critical"
        if not self._has_ballast:
            return False
        self._has_ballast = False
        try:
            self._disk.unlink(BALLAST)
        except FileNotFoundError:
            return False  # another thread was faster
        return True

    def _take_ballast(self, size_bytes: int) -> None:
        try:
            self._disk.create(BALLAST, size_bytes).close()
            self._has_ballast = True
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
