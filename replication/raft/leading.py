"""What a leader does: sends its log, counts who has it, watches that it still has a quorum.

append ──> log ──┬──(collect)──> Append to each follower, as far as its window goes
                 └──(own disk)──┐
AppendAnswer ──> progress ──────┴──> commit: what a quorum has on disk, of this term
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plait.wire.errors import Unavailable
from replication.machine import KIND_NOOP, Entry, Role
from replication.raft import changes, elections, sleeping
from replication.raft.log import last_agreeing
from replication.raft.messages import (
    Append,
    AppendAnswer,
    Beat,
    BeatAnswer,
    Lost,
    SnapshotOffer,
    TimeoutNow,
)
from replication.raft.progress import Pace, Progress
from replication.raft.quorum import agreed, has_quorum
from replication.raft.settings import NS_PER_MS
from replication.run import Run, payload_bytes_of

if TYPE_CHECKING:
    from replication.raft.core import RaftCore


def begin(core: RaftCore, now_ns: int) -> None:
    """The election is won: open the term with an entry of its own."""
    core.role, core.candidate, core.leader = Role.LEADER, "", core.replica
    core.votes.clear()
    core.election_ns = None
    core.quiet_beats = 0
    core.beat_ns = now_ns + core.settings.beat_ms * NS_PER_MS
    core.first_of_term = core.log.last_index + 1
    track(core, now_ns)
    append(core, now_ns, [Entry(core.first_of_term, core.term, KIND_NOOP, core.log.last_mark, 0, b"")])


def track(core: RaftCore, now_ns: int) -> None:
    """Follow the members of the membership in force, and nobody else."""
    members = core.membership.members()
    for replica in [replica for replica in core.progress if replica not in members]:
        core.numbered = max(core.numbered, core.progress.pop(replica).sequence)
    for replica, node in members.items():
        if replica != core.replica and replica not in core.progress:
            progress = core.progress[replica] = Progress(replica, node, core.log.last_index + 1, now_ns)
            progress.sequence = progress.confirmed_sequence = progress.paused_sequence = core.numbered
            progress.asked = True  # a new member: the log may hold nothing newer to ask it with
            core.dirty = True
    if core.transferring_to and core.transferring_to not in core.progress:
        core.transferring_to = 0
    _confirm_reads(core)  # fewer may have to vouch for them, and nobody of those may be left to say so


def append(core: RaftCore, now_ns: int, entries: list[Entry]) -> None:
    """Write entries of this term; they are sent with the next `take`."""
    run = Run(entries)
    core.write(run)
    core.uncommitted.append((run[-1].index, run.payload_bytes))
    core.uncommitted_bytes += run.payload_bytes
    core.dirty = bool(core.progress)


def advance(core: RaftCore, now_ns: int) -> None:
    """Commit what a quorum of each set of voters has on disk, if it is of this term (paper, figure 8)."""
    index = agreed(core.membership.voter_sets(), lambda voter: _has(core, voter))
    if index <= core.commit or core.log.term_at(index) != core.term:
        return
    core.committed(index)
    while core.uncommitted and core.uncommitted[0][0] <= index:
        core.uncommitted_bytes -= core.uncommitted.popleft()[1]
    changes.committed(core, now_ns)


def tick(core: RaftCore, now_ns: int) -> None:
    """Be heard, and see to it that a quorum is."""
    if core.transferring_to and now_ns >= core.transfer_ns:
        core.transferring_to = 0  # it did not take over: lead on
    if core.beat_ns is None or now_ns < core.beat_ns:
        return
    core.beat_ns = now_ns + core.settings.beat_ms * NS_PER_MS
    if not _hears_quorum(core, now_ns):
        core.follow(now_ns, core.term, 0)
        return
    if core.damaged and not core.transferring_to:
        _hand_over(core, now_ns)
    if sleeping.fall_asleep(core, now_ns):
        return
    for progress in core.progress.values():
        _look_after(core, now_ns, progress)
        if not progress.asleep:
            _beat(core, progress)


def restart(core: RaftCore, progress: Progress) -> None:
    """What was sent lately may be lost: find out where the follower stands."""
    if progress.pace is Pace.REPLICATE or progress.pace is Pace.PROBE:
        progress.probe()
    progress.probed_ns = None
    progress.asked = True
    progress.asleep = False
    core.dirty = True


def pause(core: RaftCore, progress: Progress) -> None:
    """Nothing gets through to the follower now: try again in a while."""
    if progress.pace is Pace.REPLICATE or progress.pace is Pace.PROBE:
        progress.probe()
        progress.asked = True
    progress.probed_ns = core.now_ns


def transfer(core: RaftCore, now_ns: int, target: int) -> None:
    """Hand over to a voter, as soon as it has everything. Raises Unavailable."""
    if target == core.replica:
        return
    progress = core.progress.get(target)
    if progress is None or target not in core.membership.voters:
        raise Unavailable(f"replica {target} is no voter of this group; leadership stays; name a voter")
    if progress.pace in (Pace.SNAPSHOT, Pace.LOST) or progress.damaged or progress.node in core.down:
        raise Unavailable(f"replica {target} is not following now; leadership stays; try again")
    sleeping.stir(core, now_ns)
    core.transferring_to = target
    core.transfer_ns = now_ns + core.settings.election_ms * NS_PER_MS
    _may_take_over(core, progress)


def loaded(core: RaftCore, now_ns: int, progress: Progress, first_index: int, entries: list[Entry]) -> None:
    """Entries for a follower came from the disk."""
    if not progress.loading:
        return
    progress.loading = False
    core.dirty = True
    wanted = progress.next == first_index and progress.pace in (Pace.PROBE, Pace.REPLICATE)
    if wanted and entries and core.log.term_at(entries[-1].index) == entries[-1].term:
        _append_to(core, now_ns, progress, entries)
    elif wanted and not entries and first_index > core.log.snapshot_index:
        pause(core, progress)  # damaged, it seems: not to be asked for again at once
        core.output.checkpoint |= core.applied_index >= first_index  # and a snapshot would cover it


def on_append_answer(core: RaftCore, now_ns: int, answer: AppendAnswer) -> None:
    """A follower has entries on its disk, or its log does not match."""
    progress = core.progress.get(answer.source)
    if core.role is not Role.LEADER or progress is None or progress.pace is Pace.LOST:
        return
    _heard(core, now_ns, progress)
    core.dirty = True
    if answer.damaged and (not progress.damaged or answer.sequence == 0):
        progress.damaged_until = core.commit
    progress.damaged = answer.damaged
    if answer.success:
        _accepted(core, now_ns, progress, answer)
    else:
        _refused(core, progress, answer)


def on_beat_answer(core: RaftCore, now_ns: int, answer: BeatAnswer) -> None:
    """A follower still follows."""
    progress = core.progress.get(answer.source)
    if core.role is not Role.LEADER or progress is None:
        return
    _heard(core, now_ns, progress)
    if answer.read > progress.read:
        progress.read = answer.read
        _confirm_reads(core)


def collect(core: RaftCore) -> None:
    """Before everything is taken: begin a round of reads, and send what followers may be sent."""
    if core.reads.asked and core.commit >= core.first_of_term:
        core.reads.begin(core.commit)
        for progress in core.progress.values():
            _beat(core, progress)
        _confirm_reads(core)
    if core.dirty:
        core.dirty = False
        runs: dict[int, Sequence[Entry] | None] = {}
        for progress in core.progress.values():
            _send_log(core, progress, runs)


# ---- within


def _heard(core: RaftCore, now_ns: int, progress: Progress) -> None:
    progress.heard_ns = now_ns
    if progress.node in core.down:  # the links were wrong
        del core.down[progress.node]
        sleeping.stir(core, now_ns)
        restart(core, progress)


def _has(core: RaftCore, voter: int) -> int:
    """Up to where that voter has the log on its disk."""
    if voter == core.replica:
        return core.stable_index
    progress = core.progress.get(voter)
    return progress.match if progress is not None and progress.pace is not Pace.LOST else 0


def _accepted(core: RaftCore, now_ns: int, progress: Progress, answer: AppendAnswer) -> None:
    if answer.index > core.log.last_index:
        return  # no append of this term ends there
    news = progress.acknowledged(answer.index, now_ns)
    if progress.pace is Pace.PROBE:
        old = 0 < answer.sequence <= progress.paused_sequence
        if not old or progress.match == core.log.last_index:
            progress.replicate()
    elif progress.pace is Pace.SNAPSHOT and progress.match >= core.log.snapshot_index:
        progress.replicate()
    if news:
        advance(core, now_ns)
        if core.role is Role.LEADER:
            _may_take_over(core, progress)


def _refused(core: RaftCore, progress: Progress, answer: AppendAnswer) -> None:
    if answer.index <= progress.match:
        known = answer.sequence > progress.confirmed_sequence  # asked when we knew that it had this
        if known and not answer.damaged:
            progress.lose()
            core.send(Lost(core.replica, progress.replica, core.term, progress.match))
        return
    if progress.pace is Pace.REPLICATE:
        if answer.sequence <= progress.paused_sequence:
            return
        progress.probe()
    elif progress.pace is not Pace.PROBE or answer.index != progress.next - 1:
        return  # the answer to an older question
    agree = last_agreeing(core.log, min(answer.hint_index, core.log.last_index), answer.hint_term)
    if not answer.damaged:  # it may contradict our snapshot's own entry: nothing earlier is left to ask for
        agree = min(agree, answer.index - 1)
    progress.next = max(agree, progress.match) + 1
    same = progress.next == answer.index + 1  # it cannot tell, being damaged: the same question can wait
    progress.probed_ns = core.now_ns if same else None


def _look_after(core: RaftCore, now_ns: int, progress: Progress) -> None:
    """Send again what was not answered for long."""
    late = now_ns - core.settings.resend_ms * NS_PER_MS
    if progress.pace is Pace.REPLICATE:
        if progress.window and progress.acked_ns <= late:
            progress.probe()
            core.dirty = True
    elif progress.pace is Pace.LOST:
        core.send(Lost(core.replica, progress.replica, core.term, progress.match))
    elif progress.probed_ns is None or progress.probed_ns <= late:
        progress.probed_ns = None
        progress.loading = False
        progress.asked = True  # also when there is nothing to send: the question may have been lost
        core.dirty = True
    if progress.damaged and (progress.offered_ns is None or progress.offered_ns <= late):
        _repair(core, progress)


def _repair(core: RaftCore, progress: Progress) -> None:
    """Offer a snapshot that covers all that the follower can have damaged when it said so; make one if need be."""
    if core.log.snapshot_index >= max(progress.damaged_until, 1):
        progress.offered_ns = core.now_ns
        _send_offer(core, progress)
    elif core.applied_index >= max(progress.damaged_until, 1):
        core.output.checkpoint = True


def _run(core: RaftCore, first_index: int, runs: dict[int, Sequence[Entry] | None]) -> Sequence[Entry] | None:
    """What may be sent from there on; None: not in memory. Followers at the same place are given the same."""
    if first_index not in runs:
        entries = core.log.cached(first_index, core.settings.append_bytes)
        runs[first_index] = entries if entries is None or type(entries) is Run else Run(entries)
    return runs[first_index]


def _send_log(core: RaftCore, progress: Progress, runs: dict[int, Sequence[Entry] | None]) -> None:
    settings = core.settings
    now_ns = core.now_ns
    while not progress.loading:
        if progress.pace is Pace.LOST or progress.node in core.down:
            return
        if progress.pace is Pace.SNAPSHOT or core.log.term_at(progress.next - 1) is None:
            _offer(core, progress, now_ns)
            return
        if progress.pace is Pace.PROBE and progress.probed_ns is not None:
            return
        if progress.pace is Pace.REPLICATE and progress.full(settings.window_messages, settings.window_bytes):
            return
        run: Sequence[Entry] | None = ()
        if progress.next <= core.log.last_index:
            run = _run(core, progress.next, runs)
        elif not progress.asked:
            return
        if run is None:
            progress.loading = True
            progress.probed_ns = now_ns if progress.pace is Pace.PROBE else None
            core.output.wanted.append((progress.replica, progress.next))
            return
        _append_to(core, now_ns, progress, run)


def _append_to(core: RaftCore, now_ns: int, progress: Progress, entries: Sequence[Entry]) -> None:
    previous = progress.next - 1
    previous_term = core.log.term_at(previous)
    if previous_term is None:
        return  # the log was cut meanwhile: the next look offers the snapshot
    progress.asked = False
    progress.sequence += 1
    core.send(
        Append(
            core.replica,
            progress.replica,
            core.term,
            previous,
            previous_term,
            entries,
            core.commit,
            progress.sequence,
        )
    )
    if progress.pace is Pace.PROBE:
        progress.probed_ns = now_ns
    elif entries:
        progress.sent(entries[-1].index, payload_bytes_of(entries), now_ns)


def _offer(core: RaftCore, progress: Progress, now_ns: int) -> None:
    if progress.pace is not Pace.SNAPSHOT:
        progress.await_snapshot()
    if progress.probed_ns is None:
        progress.probed_ns = now_ns
        _send_offer(core, progress)


def _send_offer(core: RaftCore, progress: Progress) -> None:
    index = core.log.snapshot_index
    term = core.log.term_at(index)
    assert term is not None, "a log knows the term of its snapshot"
    progress.sequence += 1
    core.send(SnapshotOffer(core.replica, progress.replica, core.term, index, term, progress.sequence))


def _beat(core: RaftCore, progress: Progress) -> None:
    commit = min(core.commit, progress.match)
    core.send(Beat(core.replica, progress.replica, core.term, commit, core.reads.round))


def _confirm_reads(core: RaftCore) -> None:
    def confirmed(voter: int) -> int:
        if voter == core.replica:
            return core.reads.round
        progress = core.progress.get(voter)
        return progress.read if progress is not None else 0

    core.output.reads += core.reads.confirmed(agreed(core.membership.voter_sets(), confirmed))


def hears(core: RaftCore, now_ns: int, progress: Progress) -> bool:
    """The follower was heard lately, or sleeps on a node that is there."""
    since_ns = now_ns - core.settings.election_ms * NS_PER_MS
    return progress.heard_ns > since_ns or (progress.asleep and progress.node not in core.down)


def _hears_quorum(core: RaftCore, now_ns: int) -> bool:
    def heard(voter: int) -> bool:
        progress = core.progress.get(voter)
        return voter == core.replica or (progress is not None and hears(core, now_ns, progress))

    return has_quorum(core.membership.voter_sets(), heard)


def _may_take_over(core: RaftCore, progress: Progress) -> None:
    if core.transferring_to == progress.replica and progress.match == core.log.last_index:
        core.send(TimeoutNow(core.replica, progress.replica, core.term))


def _hand_over(core: RaftCore, now_ns: int) -> None:
    """Its own storage is damaged: somebody else is to lead."""
    able = [
        progress
        for progress in core.progress.values()
        if progress.replica in core.membership.voters
        and progress.pace is Pace.REPLICATE
        and not progress.damaged
        and progress.node not in core.down
    ]
    if able:
        transfer(core, now_ns, max(able, key=lambda progress: progress.match).replica)


def step_down(core: RaftCore, now_ns: int) -> None:
    """Leave office to whoever has most, after telling all what is committed."""
    for progress in core.progress.values():
        _beat(core, progress)
    heirs = [progress for progress in core.progress.values() if progress.replica in core.membership.voters]
    if heirs:
        heir = max(heirs, key=lambda progress: (not progress.damaged, progress.match))
        core.send(TimeoutNow(core.replica, heir.replica, core.term))
    core.follow(now_ns, core.term, 0)
    if not elections.may_campaign(core):
        core.election_ns = None
