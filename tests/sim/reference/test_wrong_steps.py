"""Legal traces of the real core with one step made wrong: each is rejected there, by the rule that it breaks.

trace ──(an edit, at the first place where it can be made)──> trace' ──> Illegal: this event, this rule
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import pytest

from replication.raft.messages import (
    AppendAnswer,
    Beat,
    BeatAnswer,
    SnapshotOffer,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.sim.reference.model import Illegal
from tests.sim.reference.trace import Append, Crashed, Event, Input, Said, Stamp, Started, Taken, Write
from tests.sim.reference.validate import trace_of, validate

SEEDS = range(12)
"""Worlds in which a place for an edit is looked for."""

Edit = Callable[[Any, Sequence[Event]], Event | None]
"""Of an event, with the latest before it: the wrong one; None: not here."""
LATEST = 40
"""Events before it that an edit is shown."""

S = TypeVar("S", bound=Said)


@cache
def trace(seed: int) -> list[Event]:
    return trace_of(seed)[0]


# ---- edits of inputs


def after(when: Callable[[Input], bool], **changes: Callable[[Input], Any]) -> Edit:
    """What the core shows of itself after an input is another thing."""

    def edit(event: Event, _: Sequence[Event]) -> Event | None:
        if not isinstance(event, Input) or not when(event):
            return None
        return replace(event, state=replace(event.state, **{what: by(event) for what, by in changes.items()}))

    return edit


def writing(when: Callable[[Input], bool], *writes: Callable[[Input], Write]) -> Edit:
    """An input writes something else."""

    def edit(event: Event, _: Sequence[Event]) -> Event | None:
        if not isinstance(event, Input) or not when(event):
            return None
        return replace(event, writes=tuple(make(event) for make in writes))

    return edit


def follows(event: Input) -> bool:
    return event.state.role == "follower" and event.state.leader != 0


def lags(event: Input) -> bool:
    return event.state.last_index > event.state.commit


def hears_append(event: Input) -> bool:
    return follows(event) and bool(event.arguments) and isinstance(event.arguments[0], Append)


def forged(event: Event, _: Sequence[Event]) -> Event | None:
    """A message comes that nobody sent."""
    if not isinstance(event, Input) or not event.arguments or not isinstance(event.arguments[0], Append):
        return None
    return replace(event, arguments=(replace(event.arguments[0], commit=event.arguments[0].commit + 1),))


def other_proposal(event: Event, _: Sequence[Event]) -> Event | None:
    """The leader appends something else than it was given."""
    if not isinstance(event, Input) or event.name != "propose" or not event.writes:
        return None
    proposals, term = event.arguments
    return replace(event, arguments=(((proposals[0][0], 1), *proposals[1:]), term))


# ---- edits of what leaves


def saying(kind: type[S], when: Callable[[S], bool], change: Callable[[S], dict[str, Any]]) -> Edit:
    """A message says something else."""

    def edit(event: Event, _: Sequence[Event]) -> Event | None:
        if not isinstance(event, Taken):
            return None
        for at, message in enumerate(event.messages):
            if isinstance(message, kind) and when(message):
                wrong = replace(message, **change(message))
                return replace(event, messages=(*event.messages[:at], wrong, *event.messages[at + 1 :]))
        return None

    return edit


def adding(make: Callable[[Taken, Input], Said | None]) -> Edit:
    """A message leaves that should not; `make` sees the last input of who says it."""

    def edit(event: Event, before: Sequence[Event]) -> Event | None:
        if not isinstance(event, Taken):
            return None
        last = next((each for each in reversed(before) if each.replica == event.replica), None)
        wrong = make(event, last) if isinstance(last, Input) else None
        return replace(event, messages=(*event.messages, wrong)) if wrong is not None else None

    return edit


def reading(change: Callable[[tuple[int, int]], tuple[tuple[int, int], ...]]) -> Edit:
    """A read is answered in another way."""

    def edit(event: Event, _: Sequence[Event]) -> Event | None:
        if not isinstance(event, Taken) or not event.reads or event.reads[0][1] < 2:
            return None
        return replace(event, reads=(*change(event.reads[0]), *event.reads[1:]))

    return edit


def other_entry(append: Append) -> dict[str, Any]:
    first = append.entries[0]
    return {"entries": (first._replace(digest=1), *append.entries[1:])}


def vote_before_sync(event: Taken, last: Input) -> VoteAnswer | None:
    """It says that it voted as soon as it has."""
    voted = [write for write in last.writes if write.vote not in (0, event.replica)]
    if not voted or event.messages:
        return None
    return VoteAnswer(event.replica, voted[-1].vote, voted[-1].term, granted=True, pre=False)


def answer_before_sync(event: Taken, last: Input) -> AppendAnswer | None:
    """It confirms an append whose entries it has only just written."""
    append = last.arguments[0] if last.arguments else None
    if not isinstance(append, Append) or not last.writes or not append.entries or event.messages:
        return None
    head = event.replica, append.source, append.term, append.sequence
    return AppendAnswer(*head, True, append.last_index, 0, 0, damaged=False)


def hasty_office(event: Taken, last: Input) -> TimeoutNow | None:
    """A new leader hands over to somebody who has nothing of its term."""
    if last.state.role != "leader" or not event.standing or not event.messages:
        return None
    return TimeoutNow(event.replica, event.messages[0].target, last.state.term)


def follower_speaks(event: Taken, last: Input) -> Beat | None:
    """A follower sends a beat."""
    if not follows(last):
        return None
    return Beat(event.replica, last.state.leader, last.state.term, 0, 0)


# ---- edits of lives


AGAIN_NS = 1_000_000_000
"""Whoever starts later than this, with something in its log, starts again."""


def restart(change: Callable[[Started], dict[str, Any]], when: Callable[[Started], bool]) -> Edit:
    """A replica comes back with other things than were durable."""

    def edit(event: Event, before: Sequence[Event]) -> Event | None:
        if not isinstance(event, Started) or event.time_ns < AGAIN_NS or not when(event):
            return None
        return replace(event, listing=replace(event.listing, **change(event)))

    return edit


def ghost(event: Event, before: Sequence[Event]) -> Event | None:
    """Somebody who has crashed acts."""
    if not before or not isinstance(before[-1], Crashed):
        return None
    return Taken(event.time_ns, before[-1].replica, (), 0, (), (), 0, None)


def double_vote(event: Input) -> bool:
    return event.name == "step" and event.state.vote not in (0, event.replica) and not event.writes


EDITS: list[tuple[str, Edit]] = [
    (
        "a term never falls",
        after(lambda event: event.state.term > 1 and not event.writes, term=lambda event: event.state.term - 1),
    ),
    (
        "a term rises for a reason",
        after(
            lambda event: event.name == "applied" and event.state.vote != event.replica,
            term=lambda event: event.state.term + 1,
        ),
    ),
    ("a vote once cast stands", after(double_vote, vote=lambda event: event.state.vote + 1)),
    (
        "only candidates become leaders",
        after(lambda event: follows(event) and event.name == "tick", role=lambda _: "leader"),
    ),
    (
        "a leader has the votes of a quorum",
        after(
            lambda event: event.state.candidate == "real" and event.name == "persisted",
            role=lambda _: "leader",
            candidate=lambda _: "",
        ),
    ),
    (
        "a commit never falls",
        after(lambda event: event.state.commit > 1 and event.name == "applied", commit=lambda _: 1),
    ),
    (
        "a follower commits what its leader says, as far as they agree",
        after(
            lambda event: (
                follows(event) and event.name == "persisted" and event.state.last_index > event.state.commit
            ),
            commit=lambda event: event.state.commit + 1,
        ),
    ),
    (
        "what is applied is committed",
        after(lambda event: event.name == "applied", applied=lambda event: event.state.commit + 1),
    ),
    (
        "a leader is ready when it has applied its first entry",
        after(
            lambda event: event.state.role == "leader" and not event.state.ready and event.state.applied > 0,
            ready=lambda _: True,
        ),
    ),
    (
        "the last membership of the log is in force",
        after(lambda event: event.name == "tick", membership=lambda _: b"\x84\x01\x81\x82\x09\x09\x80\x80"),
    ),
    ("a log is what was written", after(follows, last_index=lambda event: event.state.last_index + 1)),
    (
        "who is taken for leader has been elected",
        after(lambda event: follows(event) and event.name == "step", leader=lambda event: event.replica),
    ),
    (
        "only what is applied is forgotten",
        after(follows, snapshot_index=lambda event: event.state.applied + 1),
    ),
    ("a message is one that was sent to its receiver", forged),
    ("a leader appends what is proposed to it in that term", other_proposal),
    (
        "only a leader, or its append, changes a log",
        writing(
            lambda event: follows(event) and event.name == "tick",
            lambda event: Write(
                10_000, -1, (Stamp(event.state.last_index + 1, event.state.term, 1, 7),), term=0, vote=0
            ),
        ),
    ),
    (
        "what is committed is never cut",
        writing(
            lambda event: (
                follows(event)
                and bool(event.arguments)
                and event.state.applied > event.state.snapshot_index
                and isinstance(event.arguments[0], Append)
            ),
            lambda event: Write(10_000, event.state.applied - 1, (), term=0, vote=0),
        ),
    ),
    (
        "a leader never cuts its log",
        writing(
            lambda event: event.state.role == "leader" and event.name == "applied",
            lambda event: Write(10_000, event.state.commit - 1, (), term=0, vote=0),
        ),
    ),
    ("an entry never changes", saying(Append, lambda append: bool(append.entries), other_entry)),
    (
        "an append names what is before it",
        saying(Append, lambda _: True, lambda append: {"previous_term": append.previous_term + 1}),
    ),
    (
        "a leader tells what it knows",
        saying(Append, lambda _: True, lambda append: {"commit": append.commit + 1_000}),
    ),
    (
        "a beat commits what its receiver has confirmed",
        saying(Beat, lambda _: True, lambda beat: {"commit": beat.commit + 1_000}),
    ),
    (
        "a candidate says what its log is",
        saying(VoteRequest, lambda _: True, lambda request: {"last_index": request.last_index + 1}),
    ),
    (
        "a pre-vote is as true as a vote",
        saying(VoteAnswer, lambda answer: answer.pre and not answer.granted, lambda _: {"granted": True}),
    ),
    (
        "a voter says what it did",
        saying(VoteAnswer, lambda answer: not answer.pre, lambda _: {"target": 99, "granted": True}),
    ),
    (
        "an answer covers what was asked, and no more",
        saying(AppendAnswer, lambda answer: answer.success, lambda answer: {"index": answer.index + 1}),
    ),
    (
        "who is answered has asked",
        saying(BeatAnswer, lambda answer: answer.read > 0, lambda _: {"read": 99}),
    ),
    ("a message says who speaks", saying(BeatAnswer, lambda _: True, lambda answer: {"source": answer.target})),
    (
        "a leader offers a snapshot that it has",
        saying(SnapshotOffer, lambda _: True, lambda offer: {"index": offer.index + 1}),
    ),
    ("a vote is durable before anybody knows", adding(vote_before_sync)),
    ("what is confirmed is durable", adding(answer_before_sync)),
    ("office is handed to a voter that has everything", adding(hasty_office)),
    ("only leaders speak as leaders", adding(follower_speaks)),
    ("a read sees all that was committed before it", reading(lambda read: ((read[0], read[1] - 1),))),
    ("a read is answered once, where it was asked", reading(lambda read: (read, read))),
    (
        "a crash takes only what was not durable",
        restart(lambda event: {"terms": event.listing.terms[:5]}, lambda event: len(event.listing.terms) > 20),
    ),
    (
        "a crash takes only what was not durable",
        restart(lambda _: {"vote": 0}, lambda event: event.listing.vote != 0),
    ),
    ("who has crashed does nothing", ghost),
]
"""(rule, edit)."""


def wrong_traces(edit: Edit) -> Iterator[tuple[int, list[Event]]]:
    """(number of the wrong event, trace up to it), one for each world in which there is a place for it."""
    for seed in SEEDS:
        events = trace(seed)
        for at, event in enumerate(events):
            wrong = edit(event, events[max(at - LATEST, 0) : at])
            if wrong is not None:
                yield at + 1, [*events[:at], wrong]
                break


@pytest.mark.parametrize(("rule", "edit"), EDITS, ids=[rule for rule, _ in EDITS])
def test_a_wrong_step_is_rejected_where_it_is(rule: str, edit: Edit) -> None:
    number, events = next(wrong_traces(edit))
    with pytest.raises(Illegal) as caught:
        validate(events)
    assert (caught.value.rule, caught.value.number) == (rule, number)


def test_the_message_tells_the_rule_its_source_and_what_the_replica_did_before() -> None:
    number, events = next(wrong_traces(EDITS[0][1]))
    with pytest.raises(Illegal) as caught:
        validate(events)
    told = str(caught.value).splitlines()
    assert told[0].startswith(f"event {number}: a term never falls (figure 2, currentTerm): from ")
    assert 1 < len(told) <= 13
    assert f"{number:>7} " in told[-1]
    assert all(f"replica {events[-1].replica} " in line for line in told[1:])
