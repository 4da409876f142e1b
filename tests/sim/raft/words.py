"""Words for what replicas say, write and are: short, and the same for equal things."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from replication.machine import KIND_MEMBERSHIP, KIND_NOOP, Entry
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership, decode_membership
from replication.raft.messages import (
    Append,
    AppendAnswer,
    Beat,
    BeatAnswer,
    Lost,
    Message,
    Removed,
    Sleep,
    SleepAnswer,
    SnapshotOffer,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.sim.raft.replica import Replica

PAYLOAD_SHOWN = 12
"""Bytes of a payload that are shown; of a longer one, its size."""


def of_message(message: Message) -> str:
    """Who says what to whom."""
    kind = type(message)
    rest = _REST[kind](message)
    return f"{message.source}>{message.target} {kind.__name__} term {message.term}" + (f" {rest}" if rest else "")


def of_entry(entry: Entry) -> str:
    """index/term, and what it is."""
    if entry.kind == KIND_NOOP:
        content = "-"
    elif entry.kind == KIND_MEMBERSHIP:
        content = f"[{of_members(decode_membership(entry.payload))}]"
    elif len(entry.payload) > PAYLOAD_SHOWN:
        content = f"{len(entry.payload)} bytes"
    else:
        content = bytes(entry.payload).decode()
    return f"{entry.index}/{entry.term} {content}"


def of_entries(entries: Iterable[Entry]) -> str:
    """One behind the other."""
    return ", ".join(map(of_entry, entries)) or "nothing"


def of_members(membership: Membership) -> str:
    """Voters; the former ones while there are two sets; learners."""
    parts = [" ".join(map(str, membership.voters)) or "nobody"]
    if membership.joint:
        parts.append("and " + " ".join(map(str, membership.outgoing)))
    if membership.learners:
        parts.append("learning " + " ".join(map(str, membership.learners)))
    return " ".join(parts)


def of_vote(vote: Vote) -> str:
    """Term, and for whom."""
    return f"term {vote.term}, " + (f"voted {vote.replica}" if vote.replica else "no vote")


def of_office(replica: int, core: RaftCore) -> str:
    """What it is, in which term."""
    if core.failure:
        return f"{replica} is fenced: {core.failure.partition(':')[0].partition(';')[0]}"
    if core.leader == core.replica:
        does = f"leads term {core.term}"
    elif core.candidate:
        does = f"asks whether it could lead term {core.term + 1}"
        if core.candidate == "real":
            does = f"asks to lead term {core.term}"
    elif core.leader:
        does = f"follows {core.leader} in term {core.term}"
    else:
        does = f"follows nobody in term {core.term}"
    return f"{replica} {does}"


def of_replica(replica: Replica) -> str:
    """What it is, how far its log goes, what of it is committed."""
    core, log = replica.core, replica.log
    if core is None:
        return f"{replica.id} is down"
    text = f"{of_office(replica.id, core)}, log to {log.last_index}/{log.last_term}, committed {core.commit}"
    flags = {
        "ready": core.ready,
        "asleep": core.asleep,
        "damaged": core.damaged,
        "removed": core.removed,
        "waits for a snapshot": core.installing is not None,
        f"hands over to {core.transferring_to}": bool(core.transferring_to),
    }
    return ", ".join([text, *(flag for flag, is_set in flags.items() if is_set)])


def of_log(replica: Replica, *, durable: bool = False) -> str:
    """All that is in it, or on its disk."""
    image = replica.log.durable if durable else replica.log.seen
    begin = f"snapshot {image.snapshot.index}/{image.snapshot.term}"
    begin += f" [{of_members(image.snapshot.membership)}]"
    return ", ".join([begin] * bool(image.snapshot.index) + [of_entries(image.entries)])


_REST: dict[type, Callable[[Any], str]] = {
    VoteRequest: lambda each: (
        f"log {each.last_index}/{each.last_term}" + " pre" * each.pre + " transfer" * each.transfer
    ),
    VoteAnswer: lambda each: ("yes" if each.granted else "no") + " pre" * each.pre,
    Append: lambda each: (
        f"behind {each.previous_index}/{each.previous_term}: {of_entries(each.entries)}; commit {each.commit}"
    ),
    AppendAnswer: lambda each: (
        (
            f"has {each.index}"
            if each.success
            else f"not behind {each.index}, perhaps {each.hint_index}/{each.hint_term}"
        )
        + ", damaged" * each.damaged
    ),
    Beat: lambda each: f"commit {each.commit}" + f" read {each.read}" * bool(each.read),
    BeatAnswer: lambda each: f"read {each.read}" * bool(each.read),
    SnapshotOffer: lambda each: f"of {each.index}/{each.index_term}",
    TimeoutNow: lambda each: "",
    Sleep: lambda each: f"at {each.index}",
    SleepAnswer: lambda each: ("yes" if each.agreed else "no") + f" at {each.index}",
    Removed: lambda each: f"at {each.index}",
    Lost: lambda each: f"had {each.index}",
}
