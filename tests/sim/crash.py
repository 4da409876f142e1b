"""What a power cut leaves of changes that no sync had covered.

Every dirty sector is on its own: it may hold the old bytes, the new ones, those of a write in between, or, when
the cut met the drive in the middle of it, garbage. Folders likewise lose what no `sync_folder` covered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from random import Random

from tests.sim.pages import Inode, PendingResize, PendingWrite

SECTOR_BYTES = (512, 4096)
"""The two sizes in which drives write whole or not at all."""


class Survival(Enum):
    """Which of the changes that no sync covered are there after the crash."""

    NOTHING = "nothing"
    EVERYTHING = "everything"
    PREFIX = "prefix"
    """In the order in which they were made, up to a sector in the middle of one."""
    SUFFIX = "suffix"
    """The later ones without the earlier: writes went out in the other order."""
    SUBSET = "subset"
    """Any sectors of any write, any changes of folders."""
    GARBAGE = "garbage"
    """As SUBSET, and sectors that were being written hold neither the old bytes nor the new."""
    KILLED = "killed"
    """Only the process died: the page cache is whole, and still not on the platter."""


@dataclass(frozen=True, slots=True)
class NameChange:
    """A change of a folder that no `sync_folder` has covered."""

    sequence: int
    folder: str
    """The folder whose sync makes it durable."""
    name: str
    inode: Inode | None
    """What the name stands for from now on; None: nothing."""
    gone: str | None = None
    """Of a rename: the name that goes away in the same moment."""
    makes_folder: bool = False


@dataclass(slots=True)
class Names:
    """All names of a disk: of files, with their inodes, and of folders."""

    files: dict[str, Inode] = field(default_factory=dict)
    folders: dict[str, None] = field(default_factory=lambda: {"": None})

    def apply(self, change: NameChange) -> None:
        """Make one change."""
        if change.makes_folder:
            self.folders[change.name] = None
            return
        if change.gone is not None and self.files.get(change.gone) is change.inode:
            del self.files[change.gone]
        if change.inode is None:
            self.files.pop(change.name, None)
        else:
            self.files[change.name] = change.inode


def cut_power(
    kept: Names, changes: list[NameChange], inodes: list[Inode], survival: Survival, random: Random, sector: int
) -> None:
    """Bring the platter into a state that the crash may leave: names in `kept`, bytes in the inodes."""
    if survival is Survival.NOTHING:
        return
    if survival in (Survival.EVERYTHING, Survival.PREFIX, Survival.SUFFIX):
        _settle_in_order(kept, changes, inodes, survival, random, sector)
        return
    # Of folders either a prefix survives (a journal) or any subset (no promise at all).
    chance = random.choice((0.1, 0.5, 0.9))
    if random.random() < 0.5:
        surviving = changes[: random.randrange(len(changes) + 1)]
    else:
        surviving = [change for change in changes if random.random() < chance]
    for change in surviving:
        kept.apply(change)
    for inode in inodes:
        settle_some(inode, random, sector, chance, garbage=survival is Survival.GARBAGE)


def settle_some(inode: Inode, random: Random, sector: int, chance: float, *, garbage: bool = False) -> None:
    """Put some of a file's pending sectors onto its platter, each with that chance."""
    for change in inode.pending:
        if isinstance(change, PendingResize):
            if random.random() < chance:
                inode.settle(change)
            continue
        for position, piece in change.pieces(sector):
            draw = random.random()
            if garbage and draw < 0.25:
                _spoil(inode, position, piece, random, sector)
            elif draw < chance:
                inode.kept.write(piece, position)
        if random.random() < 0.3:  # the size was grown, and the bytes are zeros
            inode.kept.resize(max(inode.kept.size, change.position + len(change.data)))


def _settle_in_order(
    kept: Names, changes: list[NameChange], inodes: list[Inode], survival: Survival, random: Random, sector: int
) -> None:
    steps: list[tuple[int, Inode | None, NameChange | PendingWrite | PendingResize]] = []
    steps += [(change.sequence, None, change) for change in changes]
    steps += [(change.sequence, inode, change) for inode in inodes for change in inode.pending]
    steps.sort(key=lambda step: step[0])
    cut = random.randrange(len(steps) + 1)
    chosen = {Survival.PREFIX: steps[:cut], Survival.SUFFIX: steps[cut:]}.get(survival, steps)
    for _, inode, change in chosen:
        if isinstance(change, NameChange):
            kept.apply(change)
        elif inode is not None:
            inode.settle(change)
    if survival is Survival.PREFIX and cut < len(steps):
        _, inode, change = steps[cut]
        if inode is not None and isinstance(change, PendingWrite):
            _tear(inode, change, random, sector)


def _tear(inode: Inode, write: PendingWrite, random: Random, sector: int) -> None:
    pieces = list(write.pieces(sector))
    for position, piece in pieces[: random.randrange(len(pieces) + 1)]:
        inode.kept.write(piece, position)


def _spoil(inode: Inode, position: int, piece: bytes, random: Random, sector: int) -> None:
    start = position - position % sector
    end = min(start + sector, max(inode.kept.size, position + len(piece)))
    shape = random.randrange(3)
    if shape == 0:
        inode.kept.write(random.randbytes(end - start), start)
    elif shape == 1:
        inode.kept.write(bytes(end - start), start)
    else:
        inode.kept.write(piece, position)
        inode.kept.flip(random.randrange(start, end), random.randrange(8))
