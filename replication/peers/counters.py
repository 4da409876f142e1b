"""What the links of a node count, for metrics and tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """All rise only."""

    frames_sent: int = 0
    bytes_sent: int = 0
    """On connections that have ended; likewise below."""
    bytes_received: int = 0
    campaigns: int = 0
    """Times that a group of this node was let campaign."""
    frames_ignored: int = 0
    """Frames of a connection that had been replaced."""
    messages_sent: int = 0
    messages_received: int = 0
    dropped_down: int = 0
    """Messages to a node that was down or unknown."""
    dropped_full: int = 0
    """Messages to a node for which too much was waiting."""
    unknown_group: int = 0
    """Messages for a group that has no replica here."""
    mailbox_full: int = 0
    """Messages for a group that has too many waiting."""
    beats_heard: int = 0
    mismatches: int = 0
    """Times that groups were woken because two nodes differed about who is asleep."""
    connections_made: int = 0
    connections_lost: int = 0
    handshakes_refused: int = 0
    handshakes_late: int = 0
    """Connections that did not say in time who they are, or were pushed out by later ones."""
    accept_errors: int = 0
