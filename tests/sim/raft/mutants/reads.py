"""Mutants of reads, readiness, sleep and snapshots."""

from __future__ import annotations

from replication.raft import following, leading, sleeping
from replication.raft.core import RaftCore
from replication.raft.reads import Reads
from tests.sim.raft.mutants.mutant import Mutant, edit

MUTANTS = (
    Mutant(
        "read answered without asking anybody",
        (41, 43),
        "A leader answers reads because it led a moment ago: while it was paused another one was elected.",
        (
            edit(
                leading.collect,
                (
                    "        _confirm_reads(core)\n",
                    "        core.output.reads += core.reads.confirmed(core.reads.round)\n",
                ),
            ),
        ),
    ),
    Mutant(
        "read before the first commit of the term",
        (38,),
        "A new leader answers reads with what it knew to be committed before.",
        (
            edit(
                leading.collect,
                ("if core.reads.asked and core.commit >= core.first_of_term:", "if core.reads.asked:"),
            ),
        ),
    ),
    Mutant(
        "read joins a round that is under way",
        (39, 40),
        "Answers to a question that was asked before the read began speak for it.",
        (
            edit(
                Reads.ask,
                (
                    "self._asked.append(self._tickets)",
                    "(self._rounds[-1][2] if self._rounds else self._asked).append(self._tickets)",
                ),
            ),
        ),
    ),
    Mutant(
        "rounds of reads are not told apart",
        (39,),
        "Every round has the same number: an old answer confirms a new read.",
        (edit(Reads.begin, ("self.round += 1", "self.round = 1")),),
    ),
    Mutant(
        "reads kept when leadership ends",
        (43,),
        "Reads that waited are neither answered nor given up.",
        (edit(RaftCore.end_leadership, ("        self._output.lost_reads += self.reads.drop()\n", "")),),
    ),
    Mutant(
        "no first entry of the term",
        (38, 42),
        "A new leader does not open its term with an entry.",
        (
            edit(
                leading.begin,
                (
                    "    append(core, now_ns, [Entry(core.first_of_term, core.term, KIND_NOOP",
                    "    ([Entry(core.first_of_term, core.term, KIND_NOOP",
                ),
            ),
        ),
    ),
    Mutant(
        "ready before the first entry of the term is applied",
        (42,),
        "A new leader serves a state that lacks what was committed before it.",
        (edit(RaftCore.ready, (" and self.applied_index >= self.first_of_term", "")),),
    ),
    Mutant(
        "sleeps while followers lack entries",
        (37,),
        "A group falls asleep that is not done.",
        (
            edit(sleeping._idle, ("progress.match == last", "True")),
            edit(
                sleeping.on_sleep,
                ("core.stable_index == core.log.last_index == sleep.index", "True"),
                ("max(core.commit, sleep.index)", "core.commit"),
            ),
        ),
    ),
    Mutant(
        "sleeper ignores candidates",
        (37,),
        "A follower that sleeps does not hear who wants to lead.",
        (
            edit(
                RaftCore.step,
                (
                    "            sleeping.wake(self, now_ns)\n",
                    "            if isinstance(message, VoteRequest):\n                return\n"
                    "            sleeping.wake(self, now_ns)\n",
                ),
            ),
        ),
    ),
    Mutant(
        "sleeper not woken when its leader's node is silent",
        (37,),
        "A follower sleeps on when its leader is gone.",
        (
            edit(
                sleeping.node_down,
                (
                    "    core.asleep = False\n    core.leader = 0\n",
                    "    if core.asleep:\n        return\n    core.leader = 0\n",
                ),
            ),
        ),
    ),
    Mutant(
        "lagging replica forgotten in the sleep",
        (37,),
        "A leader that sleeps is not woken by a node that comes back.",
        (
            edit(
                RaftCore.node_up,
                ("if self.role is Role.LEADER:", "if self.role is Role.LEADER and not self.asleep:"),
            ),
        ),
    ),
    Mutant(
        "snapshot offered is taken for one's own log",
        (55, 56),
        "A follower that has any entry at the snapshot's index says that it has the leader's.",
        (
            edit(
                following.on_snapshot_offer,
                ("core.log.term_at(offer.index) == offer.index_term", "offer.index <= core.log.last_index"),
            ),
        ),
    ),
    Mutant(
        "snapshot behind the commit is wanted",
        (14, 57),
        "A follower lets a snapshot replace what it has and knows to be committed.",
        (
            edit(
                following.on_snapshot_offer,
                (
                    "known = offer.index <= core.commit or core.log.term_at(offer.index) == offer.index_term",
                    "known = False",
                ),
            ),
        ),
    ),
    Mutant(
        "members of an installed snapshot not taken over",
        (48,),
        "A replica goes by its former members behind a snapshot.",
        (edit(following.installed, ("core.memberships = [(index, membership), *later]", "pass")),),
    ),
    Mutant(
        "commit stays behind an installed snapshot",
        (53, 57),
        "A replica has a snapshot and believes that what is in it is not committed.",
        (edit(following.installed, ("core.commit = max(core.commit, index)", "pass")),),
    ),
    Mutant(
        "conflict with the snapshot's own entry asked about for ever",
        (29, 55),
        "A leader does not offer its snapshot to whoever contradicts the last entry that is in it.",
        (edit(leading._refused, ("if not answer.damaged:", "if False:")),),
    ),
    Mutant(
        "no snapshot offered",
        (55,),
        "A leader whose log does not reach back to its follower waits.",
        (edit(leading._offer, ("        _send_offer(core, progress)\n", "")),),
    ),
    Mutant(
        "all that is in the log is committed at the start",
        (57,),
        "A replica that starts takes its whole log for committed.",
        (edit(RaftCore.__init__, ("self.commit = log.snapshot_index", "self.commit = log.last_index")),),
    ),
)
