"""A snapshot's state with what the group itself must keep: its members as of the snapshot's index.

magic │ u32 length │ membership │ the state machine's own bytes
"""

from __future__ import annotations

from struct import Struct

from replication.environment import Buffer
from replication.raft.membership import Membership, decode_membership

_HEAD = Struct("<4sI")
MAGIC = b"PRS1"


def wrap(membership: Membership, state: Buffer) -> bytes:
    """State of a machine, to be stored as a snapshot."""
    members = membership.encode()
    return b"".join((_HEAD.pack(MAGIC, len(members)), members, state))


def unwrap(snapshot: Buffer) -> tuple[Membership, memoryview]:
    """What `wrap` was given. Raises ValueError for anything else."""
    view = memoryview(snapshot)
    if len(view) < _HEAD.size:
        raise ValueError("a snapshot without its head")
    magic, length = _HEAD.unpack_from(view)
    if magic != MAGIC or len(view) < _HEAD.size + length:
        raise ValueError("a snapshot of a version that this node does not know")
    return decode_membership(view[_HEAD.size : _HEAD.size + length]), view[_HEAD.size + length :]
