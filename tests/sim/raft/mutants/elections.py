"""Mutants of terms, votes and who leads."""

from __future__ import annotations

from replication.raft import elections, following, leading, quorum
from replication.raft.core import RaftCore
from tests.sim.raft.mutants.mutant import Mutant, edit

MUTANTS = (
    Mutant(
        "vote told before it is on disk",
        (1, 4),
        "A voter answers before (term, vote) is durable.",
        (
            edit(
                elections.on_vote_request,
                (
                    "core.send_durable(VoteAnswer(core.replica, request.source, core.term, granted=True",
                    "core.send(VoteAnswer(core.replica, request.source, core.term, granted=True",
                ),
            ),
        ),
    ),
    Mutant(
        "candidate asks before its own vote is on disk",
        (1, 4),
        "Requests for votes leave at once: a candidate that crashes may vote for another in the same term.",
        (edit(elections._ask, ("core.send_durable(request)", "core.send(request)")),),
    ),
    Mutant(
        "vote never written",
        (1, 3),
        "A voter keeps its vote in memory.",
        (
            edit(
                elections.on_vote_request,
                ("core.vote, core.vote_unsaved = request.source, True", "core.vote = request.source"),
            ),
        ),
    ),
    Mutant(
        "new term written with the old vote",
        (2,),
        "A candidate writes its new term, and that it voted for nobody in it.",
        (
            edit(
                elections._campaign_really,
                ("core.write()", "core.vote = 0; core.write(); core.vote = core.replica"),
            ),
        ),
    ),
    Mutant(
        "term never written",
        (1,),
        "A replica that hears of a later term takes it over in memory only.",
        (edit(RaftCore.follow, ("            self.write()\n", "")),),
    ),
    Mutant(
        "vote forgotten at stepping down",
        (3,),
        "Whoever becomes a follower in its own term may vote once more.",
        (edit(RaftCore.follow, ("self.votes.clear()", "self.votes.clear(); self.vote = 0")),),
    ),
    Mutant(
        "votes for everybody who asks",
        (3,),
        "A voter that has voted tells another candidate that it has its vote.",
        (edit(elections._would_vote, ("return core.vote == request.source", "return True")),),
    ),
    Mutant(
        "log of the candidate not looked at: term",
        (6,),
        "A candidate whose last entry is of an older term gets votes.",
        (
            edit(
                elections._would_vote,
                ("if request.last_term < core.log.last_term:", "if False:"),
            ),
        ),
    ),
    Mutant(
        "log of the candidate not looked at: index",
        (6,),
        "A candidate with a shorter log of the same term gets votes.",
        (
            edit(
                elections._would_vote,
                (
                    "if request.last_term == core.log.last_term and request.last_index < core.log.last_index:",
                    "if False:",
                ),
            ),
        ),
    ),
    Mutant(
        "logs compared by index and term apart",
        (6,),
        "A candidate with a later last term is refused because its log is shorter: nobody can be elected.",
        (
            edit(
                elections._would_vote,
                (
                    "if request.last_term == core.log.last_term and request.last_index < core.log.last_index:",
                    "if request.last_index < core.log.last_index:",
                ),
            ),
        ),
    ),
    Mutant(
        "refusal counted as a vote",
        (5,),
        "Any answer of a voter is taken for its vote.",
        (edit(elections.on_vote_answer, ("granted=answer.granted)", "granted=True)")),),
    ),
    Mutant(
        "vote counted twice",
        (27,),
        "An answer that comes a second time counts for a voter that has said nothing.",
        (
            edit(
                elections.count,
                (
                    "core.votes.setdefault(voter, granted)",
                    "spare = min(core.membership.voters.keys() - core.votes.keys(), default=voter)\n"
                    "    core.votes.setdefault(spare if voter in core.votes else voter, granted)",
                ),
            ),
        ),
    ),
    Mutant(
        "learners vote",
        (8,),
        "Candidates ask learners too, and count whoever answers.",
        (
            edit(
                elections._ask,
                (
                    "{voter: None for voters in core.membership.voter_sets() for voter in voters}",
                    "core.membership.members()",
                ),
            ),
            edit(
                quorum.ballot,
                ("granted = sum(votes.get(voter, False) for voter in voters)", "granted = sum(votes.values())"),
            ),
        ),
    ),
    Mutant(
        "half of the voters elect",
        (19,),
        "Of four voters, two are enough for a candidate.",
        (edit(quorum.ballot, ("if granted * 2 <= len(voters):", "if granted * 2 < len(voters):")),),
    ),
    Mutant(
        "pre-votes of an older round count",
        (31,),
        "An answer to an earlier pre-vote, for another term, helps a candidate.",
        (edit(elections.on_vote_answer, ("answer.term != core.term + 1", "False")),),
    ),
    Mutant(
        "no pre-vote",
        (29, 32),
        "Whoever misses its leader campaigns at once, and disturbs a group that works.",
        (
            edit(
                elections.campaign,
                (
                    "    if transfer:\n        _campaign_really(core, transfer=True)",
                    "    if True:\n        _campaign_really(core, transfer=transfer)",
                ),
            ),
        ),
    ),
    Mutant(
        "pre-vote raises the term",
        (29, 30),
        "A replica that is asked whether it would vote takes the term over that is asked for.",
        (
            edit(
                elections.may_follow,
                (
                    "        if message.pre:\n",
                    "        if message.pre:\n            core.follow(now_ns, message.term, 0)\n",
                ),
            ),
        ),
    ),
    Mutant(
        "pre-vote resets the timer",
        (30,),
        "A voter that would vote begins its own waiting anew.",
        (
            edit(
                elections.on_vote_request,
                ("    if request.pre:\n", "    if request.pre:\n        wait(core, now_ns)\n"),
            ),
        ),
    ),
    Mutant(
        "voters do not stand by their leader",
        (32, 33),
        "A voter that hears its leader helps a candidate all the same.",
        (edit(elections._hears_leader, ("if request.transfer or core.leader", "if True or core.leader")),),
    ),
    Mutant(
        "leader does not watch its quorum",
        (33, 34),
        "A leader that nobody answers leads on.",
        (edit(leading.tick, ("if not _hears_quorum(core, now_ns):", "if False:")),),
    ),
    Mutant(
        "messages of older terms taken in",
        (26, 17),
        "Terms of messages are not compared.",
        (
            edit(
                RaftCore.step,
                (
                    "            self._answer_old(message)\n            return\n",
                    "            self._answer_old(message)\n",
                ),
            ),
        ),
    ),
    Mutant(
        "leader goes on in a term that it only heard of",
        (23, 24),
        "A leader that learns a later term writes and sends in it, as if it led it.",
        (
            edit(
                RaftCore.follow,
                (
                    "        self.end_leadership()\n",
                    "        if led:\n            self.vote, self.leader = self.replica, self.replica\n"
                    "            return\n",
                ),
            ),
        ),
    ),
    Mutant(
        "old leader answered nothing",
        (29,),
        "Whoever is behind in terms gets no answer: a replica of a later term and its group never find together.",
        (
            edit(
                RaftCore.step,
                ("            self._answer_old(message)\n            return\n", "            return\n"),
            ),
        ),
    ),
    Mutant(
        "damaged replica campaigns",
        (60, 63),
        "A replica that cannot read all of its log stands for election.",
        (edit(elections.may_campaign, ("if core.damaged or ", "if ")),),
    ),
    Mutant(
        "campaigns while a snapshot is on its way",
        (53, 60),
        "A replica whose log is about to be replaced stands for election.",
        (edit(elections.may_campaign, ("or core.installing is not None ", "")),),
    ),
    Mutant(
        "learner campaigns",
        (8, 49),
        "A member without a vote stands for election.",
        (
            edit(
                elections.may_campaign,
                ("if core.membership.is_voter(core.replica):", "if core.replica in core.membership:"),
            ),
        ),
    ),
    Mutant(
        "hands over to one that lacks entries",
        (49,),
        "A leader asks a follower to lead before that has everything.",
        (edit(leading._may_take_over, (" and progress.match == core.log.last_index", "")),),
    ),
    Mutant(
        "two leaders of a term are put up with",
        (3, 27),
        "A leader that hears another one of its own term becomes its follower, and nobody hears of it.",
        (
            edit(elections._would_vote, ("return core.vote == request.source", "return True")),
            edit(
                following.hear,
                (
                    '        core.fence(now_ns, f"replicas',
                    '        core.follow(now_ns, core.term, leader); (f"replicas',
                ),
            ),
        ),
    ),
)
