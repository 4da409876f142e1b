"""Mutants that scripts show (tests/sim/raft/scenarios): what they need comes about rarely, or never, in worlds."""

from __future__ import annotations

from replication.raft import changes, elections, leading
from tests.sim.raft.mutants.mutant import Layer, Mutant, edit

MUTANTS = (
    Mutant(
        "entries that were read are not looked at again",
        (21,),
        "What was read for a follower is sent, whatever has become of the log meanwhile.",
        (
            edit(
                leading.loaded,
                ("and core.log.term_at(entries[-1].index) == entries[-1].term", ""),
            ),
        ),
        Layer.SCRIPTS,
    ),
    Mutant(
        "who is taken out does not stand",
        (35,),
        "A replica goes by a change that is not committed, and which nobody else may have.",
        (
            edit(
                elections.may_campaign,
                ("uncommitted = core.membership_index > core.commit", "uncommitted = False"),
            ),
        ),
        Layer.SCRIPTS,
    ),
    Mutant(
        "silent or damaged learner becomes a voter",
        (49,),
        "Whoever has nearly everything may vote, be it gone since, or unfit to lead.",
        (edit(changes._check_caught_up, ("if silent or progress.damaged:", "if False:")),),
        Layer.SCRIPTS,
    ),
    Mutant(
        "answer of a stranger counts",
        (51,),
        "A leader takes what a replica says that has left for the word of another one.",
        (
            edit(
                leading.on_append_answer,
                (
                    "progress = core.progress.get(answer.source)",
                    "progress = core.progress.get(answer.source, ([None, *core.progress.values()])[-1])",
                ),
            ),
        ),
        Layer.SCRIPTS,
    ),
    Mutant(
        "loss not noticed",
        (63,),
        "A leader ignores that a follower does not have what it had acknowledged.",
        (edit(leading._refused, ("if known and not answer.damaged:", "if False:")),),
        Layer.SCRIPTS,
    ),
    Mutant(
        "commit waits for the leader's own disk",
        (65,),
        "What a majority of the others has on disk is not committed before the leader has it, too.",
        (
            edit(
                leading.advance,
                (
                    "lambda voter: _has(core, voter))",
                    "lambda voter: min(_has(core, voter), core.stable_index))",
                ),
            ),
        ),
        Layer.SCRIPTS,
    ),
    Mutant(
        "candidate does not wait for its disk",
        (65,),
        "Whoever has a slow disk begins another term before it has voted in the last one, and so for ever.",
        (edit(elections.leader_is_silent, ('if core.candidate == "real"', 'if core.candidate == "none"')),),
        Layer.SCRIPTS,
    ),
)
