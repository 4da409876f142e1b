"""A segment file under construction. It has a name that counts only when it is whole and synced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from replication.environment import Environment, File
from replication.machine import Entry
from replication.storage import segments
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part, SegmentWriter
from replication.storage.settings import StorageSettings


class NewSegment:
    """A segment file under construction: made when the first entry comes, abandoned without a trace."""

    def __init__(
        self, environment: Environment, settings: StorageSettings, segment_files: SegmentFiles, lane: str
    ) -> None:
        """On the loop; what blocks runs in `lane`."""
        self.salt = environment.random.getrandbits(64)
        self.number = segment_files.new_number()
        self.parts: list[Part] = []
        self._environment = environment
        self._settings = settings
        self._lane = lane
        self._file: File | None = None
        self._writer: SegmentWriter | None = None
        self._part: tuple[int, int, int] | None = None

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._writer.size_bytes if self._writer is not None else 0

    def add(self, group: int, origin: int, entries: Sequence[Entry], piece: int = 0) -> None:
        """Write entries (blocking); those of one group, origin and piece one behind the other. Raises OSError."""
        if not entries:
            return
        if self._writer is None:
            self._file = self._environment.disk.create(self._name)
            self._writer = SegmentWriter(self._file, self.number, self.salt, self._settings.segment_index_bytes)
        if self._part != (group, origin, piece):
            self._part = group, origin, piece
            self._writer.begin(group, origin, piece)
        self._writer.add(entries)

    def save(self) -> None:
        """Sync what was added (blocking). The file has no name yet that counts. Raises OSError."""
        if self._writer is not None:
            self._writer.save()

    async def commit(self, written: list[int], origin: int | None = None) -> int | None:
        """Make it durable; its number, which is also added to `written` as soon as it has its name. None: it is
        empty, so there is none. `origin`: of all its parts, where it was not known before. Raises OSError."""
        if self._writer is None:
            return None
        await self._environment.tasks.offload(self._lane, partial(self._finish, written, origin))
        return self.number

    async def abandon(self) -> None:
        """Leave no file behind."""
        if self._file is not None:
            await self._environment.tasks.offload(self._lane, self._discard)

    @property
    def _name(self) -> str:
        return f"{segments.FOLDER}/{self.number:012d}.tmp"

    def _finish(self, written: list[int], origin: int | None) -> None:
        assert self._writer is not None, "there is a writer when there are entries"
        assert self._file is not None, "the writer has a file"
        disk = self._environment.disk
        self.parts = self._writer.finish(origin)
        self._file.close()
        self._file = None
        disk.rename(self._name, segments.file_name(self.number))
        written.append(self.number)
        disk.sync_folder(segments.FOLDER)

    def _discard(self) -> None:
        assert self._file is not None, "only an unfinished file is discarded"
        self._file.close()
        self._file = None
        self._environment.disk.unlink(self._name)
