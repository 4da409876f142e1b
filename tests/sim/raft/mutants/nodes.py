"""Mutants of what is around the core: the actor, the log on disk, the brokers. Whole nodes show them."""

from __future__ import annotations

from node import producers, publishing
from replication import group, replica_log
from replication.storage import wal
from tests.sim.raft.mutants.mutant import Layer, Mutant, edit

MUTANTS = (
    Mutant(
        "log written and not synced",
        (4, 9, 11),
        "A write of the log counts as durable when the operating system has it.",
        (edit(wal._write_and_sync, ("    file.sync()\n", "")),),
        Layer.NODES,
        ("power cut", "power cut everywhere"),
    ),
    Mutant(
        "failed write taken for a good one",
        (7, 10),
        "After an error of the disk, what waited is told that it is durable.",
        (edit(wal.Wal.fail, ("item.done(self.failed)", "item.done(None)")),),
        Layer.NODES,
        ("sync error", "write error"),
    ),
    Mutant(
        "cut entries stay in the queue for the state machine",
        (21,),
        "Entries that were truncated are applied when others of their index are committed.",
        (
            edit(
                replica_log.ReplicaLog.truncate_after,
                ("while self._unapplied and self._unapplied[-1].index > index:", "while False:"),
            ),
        ),
        Layer.NODES,
        ("partition", "one way", "kill", "pause", "transfer"),
    ),
    Mutant(
        "snapshot installed in the log only",
        (53, 56),
        "The state machine does not get the snapshot that its log begins with.",
        (
            edit(
                group.Group._installed,
                (
                    "            self._machine.restore(bytes(machine_state))\n",
                    "            bytes(machine_state)\n",
                ),
            ),
        ),
        Layer.NODES,
    ),
    Mutant(
        "snapshot at one index with the state of another",
        (53,),
        "A checkpoint says that it is one entry older than its state: that entry is applied twice.",
        (
            edit(
                group.Group.checkpoint,
                (
                    "            self.applied_index,\n            self._applied_term,",
                    "            self.applied_index - 1,\n            self._applied_term,",
                ),
            ),
        ),
        Layer.NODES,
    ),
    Mutant(
        "repetitions not recognized",
        (66, 67),
        "A producer that sends a batch again has it in the topic twice.",
        (
            edit(
                publishing.Publishing._is_repetition,
                ("if header.producer_id < 0:", "if True:"),
            ),
            edit(
                publishing.Publishing._begin_sequence,
                ("if publish.header.producer_id < 0:", "if True:"),
            ),
        ),
        Layer.BROKERS,
    ),
    Mutant(
        "producers not in the snapshot",
        (58, 66),
        "What is known of producers is gone after a restart from a snapshot.",
        (
            edit(
                producers.ProducerTable.restored,
                (
                    "for producer_id, epoch, stamp_ms, *flat in producers:",
                    "for producer_id, epoch, stamp_ms, *flat in ():",
                ),
            ),
        ),
        Layer.BROKERS,
    ),
    Mutant(
        "permits leak",
        (70,),
        "A publish that is done still counts as being under way.",
        (edit(publishing.Publishing._give_back, ("if publish.permit is not None:", "if False:")),),
        Layer.BROKERS,
    ),
)
