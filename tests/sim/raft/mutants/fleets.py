"""Mutants of clusters whose nodes come and go: placement, moves, removal, new partitions. Fleets show them."""

from __future__ import annotations

from cluster.assignment import Assignment
from cluster.balance import Fleet
from cluster.catalogue import Catalogue
from node.attachments import Attachments
from node.controller import Controller
from node.moving import Moving
from node.replicas import Replicas
from tests.sim.raft.mutants.mutant import Layer, Mutant, edit

MUTANTS = (
    Mutant(
        "replica's id given again",
        (),
        "Another replica of a group gets the id that one had before it.",
        (edit(Assignment.reassigned, ("next_replica=number,", "next_replica=self.next_replica,")),),
        Layer.FLEETS,
    ),
    Mutant(
        "data goes before the group has gone over",
        (),
        "A node deletes what it has of a group that is told to go elsewhere, and has not gone yet.",
        (edit(Catalogue.replica_is_gone, ("(*assignment.wanted, *assignment.leaving)", "assignment.wanted")),),
        Layer.FLEETS,
    ),
    Mutant(
        "said to have gone over when it has not",
        (),
        "The catalogue is told that a group has the wanted members before it has them.",
        (
            edit(
                Moving._is_there,
                ("return same and not members.joint and group.members_committed", "return same or True"),
            ),
        ),
        Layer.FLEETS,
        ("join", "drain", "remove", "node dead"),
    ),
    Mutant(
        "node removed with what it has",
        (),
        "A node that is to leave is removed at once: its replicas are still members, and nobody moves them.",
        (
            edit(Controller._watch, (" and not self._catalogue.assignments.replicas_on(node.node_id)", "")),
            edit(
                Catalogue._remove_node,
                (
                    'node.state != "leaving" or self._assignments.replicas_on(node.node_id)',
                    'node.state != "leaving"',
                ),
            ),
        ),
        Layer.FLEETS,
        ("remove", "join", "machine lost"),
    ),
    Mutant(
        "drained nodes keep what they have",
        (),
        "Nodes that are to hand over count as good places for replicas and leaders.",
        (edit(Fleet.__init__, ('if node.state == "active" and not node.dead', "if not node.dead")),),
        Layer.FLEETS,
        ("drain", "join"),
    ),
    Mutant(
        "new partitions are opened by nobody",
        (),
        "Nodes open a topic's partitions when it is made, and not those that come later.",
        (edit(Replicas._act, ("case CreateTopic() | ResizeTopic() if", "case CreateTopic() if")),),
        Layer.FLEETS,
        ("more partitions",),
    ),
    Mutant(
        "consumers do not hear of new partitions",
        (),
        "Who consumes a queue is given nothing from partitions that it gets later.",
        (edit(Attachments.look, ("for attachment in list(self._all):", "for attachment in ():")),),
        Layer.FLEETS,
        ("more partitions",),
    ),
)
