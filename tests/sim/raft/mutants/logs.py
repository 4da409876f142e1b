"""Mutants of the log: what is appended, acknowledged, counted and committed."""

from __future__ import annotations

from replication.raft import following, leading, quorum
from replication.raft.core import RaftCore
from replication.raft.progress import Progress
from tests.sim.raft.mutants.mutant import Mutant, edit

_ABA = edit(
    RaftCore.truncate_after,
    ("            written[1] = min(written[1], index)\n", "            pass\n"),
)

MUTANTS = (
    Mutant(
        "acknowledged before it is on disk",
        (4, 9),
        "A follower answers an append as soon as its entries stand in the log.",
        (edit(following.on_append, ("core.send_durable(answer)", "core.send(answer)")),),
    ),
    Mutant(
        "leader counts what is not on its disk",
        (4, 9),
        "A leader counts its own entries before they are synced.",
        (edit(leading._has, ("return core.stable_index", "return core.log.last_index")),),
    ),
    Mutant(
        "write of a truncated entry counts",
        (20,),
        "A sync of entries that were cut off meanwhile vouches for those that were written in their place.",
        (_ABA,),
    ),
    Mutant(
        "acknowledged by index, not by write",
        (17, 20),
        "A follower answers when its disk is said to reach an index, whichever entries those were.",
        (
            _ABA,
            edit(
                following.on_append,
                (
                    "core.send_durable(answer)",
                    "(core.send if core.stable_index >= last else core.send_durable)(answer)",
                ),
            ),
        ),
    ),
    Mutant(
        "entries of older terms committed by counting",
        (13,),
        "A leader commits what a majority has, of whatever term (the paper's figure 8).",
        (
            edit(
                leading.advance,
                ("index <= core.commit or core.log.term_at(index) != core.term", "index <= core.commit"),
            ),
        ),
    ),
    Mutant(
        "commit reaches into the follower's own tail",
        (15, 23),
        "A follower commits as far as its leader, though it has other entries there.",
        (edit(following.on_append, ("min(append.commit, last)", "min(append.commit, core.log.last_index)")),),
    ),
    Mutant(
        "beats carry the leader's commit",
        (15,),
        "A beat tells a follower to commit what it is not known to have.",
        (edit(leading._beat, ("min(core.commit, progress.match)", "core.commit")),),
    ),
    Mutant(
        "stale append cuts the log",
        (14,),
        "What stands behind the entries of an append is cut off, also where it does not contradict them.",
        (
            edit(
                following._take_over,
                (
                    "    known = 0  # entries that are here\n",
                    "    known = 0\n    last = max(entries[-1].index, core.commit)\n"
                    "    if last < log.last_index:\n        core.truncate_after(last)\n",
                ),
            ),
        ),
    ),
    Mutant(
        "cuts one entry too many",
        (22,),
        "A follower that drops conflicting entries drops the one before them too.",
        (
            edit(
                following._take_over,
                ("core.truncate_after(entry.index - 1)", "core.truncate_after(entry.index - 2)"),
            ),
        ),
    ),
    Mutant(
        "acknowledges its whole log",
        (15,),
        "An answer names the follower's last entry, not the last of the append.",
        (
            edit(
                following.on_append,
                ("append.sequence, True, last, 0", "append.sequence, True, core.log.last_index, 0"),
            ),
        ),
    ),
    Mutant(
        "term of the entry before not compared",
        (15, 18),
        "An append is taken wherever the follower has any entry at the index before it.",
        (
            edit(
                following.on_append,
                (
                    "core.log.term_at(append.previous_index) != append.previous_term",
                    "append.previous_index > core.log.last_index",
                ),
            ),
        ),
    ),
    Mutant(
        "entries that contradict are kept",
        (14, 15),
        "A follower takes its own entry at an index for the leader's.",
        (edit(following._take_over, ("if term == entry.term:", "if term is not None:")),),
    ),
    Mutant(
        "refusal taken for progress",
        (16,),
        "A leader believes that a follower has the entries where their logs may agree.",
        (
            edit(
                leading._refused,
                (
                    "    progress.next = max(agree, progress.match) + 1\n",
                    "    progress.match = max(agree, progress.match)\n    progress.next = progress.match + 1\n"
                    "    advance(core, core.now_ns)\n",
                ),
            ),
        ),
    ),
    Mutant(
        "match moves back",
        (17, 18),
        "An answer that comes late makes the leader believe that the follower has less.",
        (edit(Progress.acknowledged, ("if index <= self.match:", "if index == self.match:")),),
    ),
    Mutant(
        "answer of an older term counts",
        (17,),
        "A leader takes a follower's answer to a leader of before for one to itself.",
        (
            edit(
                RaftCore.step,
                (
                    "elif message.term < self.term:",
                    "elif message.term < self.term and not isinstance(message, AppendAnswer):",
                ),
            ),
        ),
    ),
    Mutant(
        "late refusal taken for loss",
        (18,),
        "A refusal that was sent before the follower caught up makes the leader believe that it lost entries.",
        (edit(leading._refused, ("known = answer.sequence > progress.confirmed_sequence", "known = True")),),
    ),
    Mutant(
        "quorum from an unsorted list",
        (19,),
        "What a majority has is read from the voters in the order of their ids.",
        (edit(quorum._of_one, ("sorted(map(value_of, voters))", "[value_of(voter) for voter in voters]")),),
    ),
    Mutant(
        "half of the voters commit",
        (19,),
        "Of four voters, two that have an entry are enough.",
        (edit(quorum._of_one, ("(len(voters) - 1) // 2", "len(voters) // 2")),),
    ),
    Mutant(
        "proposal of another term appended",
        (25,),
        "What was decided by the leader of one term is appended in the next.",
        (edit(RaftCore.check_leads, ("or self.term != expected_term", "")),),
    ),
    Mutant(
        "window not freed after a loss",
        (27, 28),
        "Appends that are never answered keep the follower's window full.",
        (edit(leading._look_after, ("if progress.window and progress.acked_ns <= late:", "if False:")),),
    ),
    Mutant(
        "question never repeated",
        (27,),
        "A probe or an offer that was lost is waited for for ever.",
        (
            edit(
                leading._look_after,
                ("elif progress.probed_ns is None or progress.probed_ns <= late:", "elif False:"),
            ),
        ),
    ),
    Mutant(
        "budget not given back at commit",
        (70,),
        "What was committed still counts as waiting: the leader refuses everything at last.",
        (
            edit(
                leading.advance,
                ("core.uncommitted_bytes -= core.uncommitted.popleft()[1]", "core.uncommitted.popleft()"),
            ),
        ),
    ),
    Mutant(
        "budget kept when leadership ends",
        (70,),
        "A leader that steps down still counts what waited, and refuses proposals when it leads again.",
        (edit(RaftCore.end_leadership, ("        self.uncommitted_bytes = 0\n", "")),),
    ),
    Mutant(
        "fenced replica answers",
        (7, 10),
        "A replica whose disk failed still takes messages in, and answers.",
        (edit(RaftCore.step, ("self.role is Role.FENCED or message.target", "message.target")),),
    ),
    Mutant(
        "success behind a failure counts",
        (7, 10),
        "What waited for a write that failed is said when a later one is called done.",
        (
            edit(
                RaftCore.persisted,
                ("if self.role is Role.FENCED:\n            return", "if False:\n            return"),
            ),
            edit(RaftCore.fence, ("self.held.clear()", "self.role")),
        ),
    ),
    Mutant(
        "windows have no end",
        (65,),
        "A follower that does not answer is sent everything all the same.",
        (edit(Progress.full, ("return ", "return False and ")),),
    ),
)
