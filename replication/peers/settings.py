"""What can be set about the links between the nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

KIBIBYTE = 1 << 10
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Times in milliseconds, sizes in bytes. Beat and silence are to be the same on all nodes."""

    beat_ms: int = 200
    """Time between two beats of a node to a node."""
    silence_ms: int = 1_000
    """A node that has not been heard for this long counts as down, and its connections are given up."""
    handshake_ms: int = 2_000
    """A connection that has not said who it is by then is closed."""
    connect_ms: int = 2_000
    """An attempt to connect that has not succeeded by then is given up."""
    backoff_min_ms: int = 50
    """Longest wait before the first attempt to connect again; each failure doubles it."""
    backoff_max_ms: int = 2_000
    """Longest wait before any attempt."""
    stall_ms: int = 10_000
    """A connection that takes nothing of a frame for this long is closed."""
    handshakes_max: int = 64
    """Connections that have not said who they are yet; one more pushes the oldest out."""
    peers_max: int = 256
    """Nodes that this one knows or hears of."""
    queue_messages: int = 65_536
    """Raft messages that wait for one node; more are dropped, and their groups told."""
    queue_bytes: int = 64 * MEBIBYTE
    """Payload of the appends among them; one larger append may wait alone."""
    frame_bytes: int = MEBIBYTE
    """Payload from which on a control frame is not filled up any more."""
    bulk_beat_ms: int = 1_000
    """Time between two signs of life on the bulk connection."""
    bulk_silence_ms: int = 5_000
    """A bulk connection that was silent for this long is given up and made anew; says nothing about the node."""
    piece_bytes: int = 64 * KIBIBYTE
    """A question's or an answer's payload travels in pieces of this size, taking turns with others."""
    bulk_frame_bytes: int = 256 * KIBIBYTE
    """Payload from which on a bulk frame is not filled up any more."""
    asks_max: int = 4_096
    """Questions to one node that may be unanswered; also of one node to this one."""
    ask_bytes: int = 64 * MEBIBYTE
    """Their payload together, and that of the answers that wait; a single larger one may be alone."""
    payload_bytes_max: int = 72 * MEBIBYTE
    """Largest payload of a question or an answer: the largest record and what is around it."""
    campaigns_max: int = 256
    """Groups of this node that may campaign at one time."""
    campaign_ms: int = 3_000
    """A campaign that has not ended by then gives its place to the next one."""
    mismatch_beats: int = 5
    """Beats for which two nodes must differ about who is asleep before those groups are woken."""
