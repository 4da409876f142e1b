"""How the nodes of a simulation are set up: so small that log files rotate and snapshots happen within seconds."""

from __future__ import annotations

from dataclasses import dataclass

from replication.peers.settings import PeerSettings
from replication.raft.settings import RaftSettings
from replication.storage.settings import StorageSettings
from replication.transfer_rules import TransferSettings
from tests.sim.cluster.plan import Shape

CLUSTER_ID = "simulated"
PEER_PORT = 7_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Of every node of one run."""

    raft: RaftSettings
    storage: StorageSettings
    peers: PeerSettings
    transfers: TransferSettings


def settings_of(shape: Shape) -> Settings:
    """As a plan wants them."""
    raft = RaftSettings(
        beat_ms=shape.beat_ms,
        election_ms=shape.election_ms,
        resend_ms=shape.election_ms,
        append_bytes=shape.append_bytes,
        window_messages=shape.window_messages,
        window_bytes=max(4 * shape.append_bytes, 8_000),
        uncommitted_bytes=40_000,
        reads_waiting=100,
        promotion_entries=64,
        quiet_beats=3,
        sleeps=shape.sleeps,
    )
    storage = StorageSettings(
        wal_file_bytes=shape.wal_file_bytes,
        wal_write_bytes=16_384,
        segment_own_bytes=shape.segment_own_bytes,
        segment_index_bytes=2_048,
        compact_below_percent=60,
        low_space_bytes=0,
        critical_space_bytes=0,
        ballast_bytes=8_192,
        janitor_interval_ms=500,
    )
    peers = PeerSettings(
        beat_ms=shape.beat_ms,
        silence_ms=shape.election_ms,
        handshake_ms=500,
        connect_ms=500,
        backoff_min_ms=20,
        backoff_max_ms=300,
        stall_ms=2_000,
        bulk_silence_ms=2_000,
        piece_bytes=2_048,
        bulk_frame_bytes=4_096,
    )
    transfers = TransferSettings(
        piece_bytes=1_500,
        transfers_max=2,
        wait_ms=50,
        timeout_ms=1_000,
        retry_ms=50,
        idle_ms=1_500,
        linger_ms=300,
        hold_ms=20_000,
    )
    return Settings(raft, storage, peers, transfers)
