"""Mutants of members: joint changes, learners, those who leave."""

from __future__ import annotations

from replication.raft import changes, quorum
from replication.raft.core import RaftCore
from tests.sim.raft.mutants.mutant import Mutant, edit

MUTANTS = (
    Mutant(
        "only the new voters decide",
        (46,),
        "While two sets of voters stand, a majority of the new one is enough.",
        (
            edit(quorum.agreed, ("for voters in voter_sets", "for voters in list(voter_sets)[:1]")),
            edit(quorum.ballot, ("for voters in voter_sets:", "for voters in list(voter_sets)[:1]:")),
        ),
    ),
    Mutant(
        "only the old voters decide",
        (46,),
        "While two sets of voters stand, a majority of the former one is enough.",
        (
            edit(quorum.agreed, ("for voters in voter_sets", "for voters in list(voter_sets)[-1:]")),
            edit(quorum.ballot, ("for voters in voter_sets:", "for voters in list(voter_sets)[-1:]:")),
        ),
    ),
    Mutant(
        "a majority of both sets together decides",
        (45,),
        "While two sets of voters stand, a majority of their union is enough.",
        (
            edit(quorum.agreed, ("for voters in voter_sets", "for voters in [set().union(*voter_sets)]")),
            edit(quorum.ballot, ("for voters in voter_sets:", "for voters in [set().union(*voter_sets)]:")),
        ),
    ),
    Mutant(
        "members in force only when committed",
        (46,),
        "A replica goes by the last committed members, not by those in its log.",
        (
            edit(
                RaftCore.membership,
                (
                    "return self.memberships[-1][1] if self.memberships else _NOBODY",
                    "known = [one for at, one in self.memberships if at <= max(self.commit, 1)] or [_NOBODY]\n"
                    "        return known[-1]",
                ),
            ),
        ),
    ),
    Mutant(
        "members kept when their entry is cut off",
        (47,),
        "A change that was truncated stays in force.",
        (
            edit(
                changes.truncated,
                ("while core.memberships and core.memberships[-1][0] > index:", "while False:"),
            ),
        ),
    ),
    Mutant(
        "change before an own entry is committed",
        (44,),
        "A new leader changes members before it knows what is committed.",
        (edit(changes.begin, ("if core.commit < core.first_of_term:", "if False:")),),
    ),
    Mutant(
        "two changes at a time",
        (44,),
        "A change begins while another is under way.",
        (edit(changes.begin, ("if core.membership_index > core.commit or core.membership.joint:", "if False:")),),
    ),
    Mutant(
        "joint members left before they are committed",
        (44, 46),
        "The second step is taken while a majority may not know of the first.",
        (edit(changes.committed, ("if core.membership_index > core.commit:", "if False:")),),
    ),
    Mutant(
        "second step forgotten",
        (49,),
        "The group stays between two sets of voters.",
        (edit(changes.committed, ("    if core.membership.joint:\n", "    if False:\n")),),
    ),
    Mutant(
        "learner votes before it has caught up",
        (49, 46),
        "A new voter may lack everything.",
        (edit(changes._check_caught_up, ("if core.membership.is_voter(voter):", "if True:")),),
    ),
    Mutant(
        "leader that was taken out leads on",
        (49,),
        "Who is no voter any more stays leader.",
        (edit(changes.committed, ("if core.replica not in core.membership.voters:", "if False:")),),
    ),
)
