"""What clients know of one topic or queue, and what must be true of it whatever happened.

    published: value ──> acknowledged at (partition, offset) | refused | nobody knows
    seen: (partition, offset) holds value ──> the same for everybody, once, asked for, not refused, in real time

Knows no scenario and no broker: clients tell it what they did and what they were told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Broken = Callable[[str], None]
"""Takes a sentence about what was found to be wrong."""
Place = tuple[int, int]
"""(partition, offset)."""

UNDER_WAY = "under way"
ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"


@dataclass(slots=True)
class Published:
    """One value that a client published."""

    stream: str
    """Values of one stream were sent one behind the other."""
    number: int
    floors: Mapping[int, int]
    """By partition, the highest offset that anybody knew of when its publishing began."""
    fate: str = UNDER_WAY
    place: Place | None = None


@dataclass(slots=True)
class Book:
    """Of one topic or queue."""

    name: str
    broken: Broken
    values: dict[bytes, Published] = field(default_factory=dict)
    places: dict[Place, bytes] = field(default_factory=dict)
    floors: dict[int, int] = field(default_factory=dict)
    delivered: dict[str, dict[bytes, None]] = field(default_factory=dict)
    """By subscription, what it was handed."""
    acknowledged: int = 0
    given_up: dict[Place, None] = field(default_factory=dict)
    """What went to the queue for dead letters."""
    dropped: dict[Place, None] = field(default_factory=dict)
    """What a full queue has let go."""
    _handed: dict[tuple[int, int, int], str] = field(default_factory=dict)
    _done: dict[Place, int] = field(default_factory=dict)
    _tried: dict[Place, int] = field(default_factory=dict)

    # ---- publishing

    def begin(self, value: bytes, stream: str, number: int) -> None:
        """A client begins to publish a value that nobody published before."""
        self.values[value] = Published(stream, number, dict(self.floors))

    def stored(self, value: bytes, place: Place | None = None) -> None:
        """It was told that the value is stored (there)."""
        published = self.values[value]
        published.fate = ACKNOWLEDGED
        self.acknowledged += 1
        if place is not None:
            self.seen(value, place)

    def refused(self, value: bytes) -> None:
        """It was told that the value is not stored and never will be."""
        published = self.values[value]
        published.fate = REFUSED
        if published.place is not None:
            self._say(f"{_short(value)} was refused and stands at {published.place}")

    # ---- reading

    def seen(self, value: bytes, place: Place) -> None:
        """Somebody was shown that value in that place."""
        known = self.places.get(place)
        if known is not None:
            if known != value:
                self._say(f"{place} holds {_short(known)} for one and {_short(value)} for another")
            return
        published = self.values.get(value)
        if published is None:
            self._say(f"{place} holds {_short(value)}, which nobody published")
            return
        if published.fate == REFUSED:
            self._say(f"{place} holds {_short(value)}, which was refused")
        if published.place is not None:
            self._say(f"{_short(value)} stands at {published.place} and at {place}")
        partition, offset = place
        if offset <= published.floors.get(partition, -1):
            known_offset = published.floors[partition]
            self._say(f"{_short(value)} stands at {place}, and {known_offset} was known before it was begun")
        published.place = place
        self.places[place] = value
        self.floors[partition] = max(self.floors.get(partition, -1), offset)

    def read_to(self, floors: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """A read that began when `floors` were known has shown everything below `ends`, by partition."""
        for partition, end in ends.items():
            floor = floors.get(partition, -1)
            if end <= floor:
                self._say(f"a read of partition {partition} ends at {end}; {floor} was known before it was begun")
            self.floors[partition] = max(self.floors.get(partition, -1), end - 1)

    def given(self, subscription: str, value: bytes) -> None:
        """A subscription was handed a value."""
        self.delivered.setdefault(subscription, {})[value] = None

    def missing(self, subscription: str) -> list[bytes]:
        """What was acknowledged and not handed to a subscription yet."""
        had = self.delivered.get(subscription, {})
        return [value for value, one in self.values.items() if one.fate == ACKNOWLEDGED and value not in had]

    # ---- consuming a queue

    def handed(self, place: Place, deliveries: int, consumer: str) -> None:
        """A consumer was handed what is in a place, for the so-manieth time."""
        holder = self._handed.setdefault((*place, deliveries), consumer)
        if holder != consumer:
            self._say(f"delivery {deliveries} of {place} was handed to {holder} and to {consumer}")
        done = self._done.get(place)
        if done is not None and deliveries > done:
            self._say(f"{place} is handed out for the {deliveries}th time and was done with the {done}th")

    def acknowledging(self, place: Place) -> None:
        """A consumer is about to acknowledge."""
        self._tried[place] = self._tried.get(place, 0) + 1

    def done(self, place: Place, deliveries: int) -> None:
        """It was told that the message is done with."""
        first = self._done.setdefault(place, deliveries)
        if first != deliveries:
            self._say(f"{place} was acknowledged with its {first}th and its {deliveries}th delivery")

    def not_done(self, place: Place) -> None:
        """It was told that its acknowledgement was not taken."""
        self._tried[place] -= 1

    def let_go(self, place: Place, *, dead: bool) -> None:
        """A full queue has made place: that is gone, or `dead` and on its way to another queue."""
        if place in self._done:
            self._say(f"{place} was acknowledged, and is let go behind that")
        (self.given_up if dead else self.dropped)[place] = None

    def left(self) -> list[bytes]:
        """What was acknowledged as stored, and nobody has acknowledged as done: it must come (again)."""
        return [
            value
            for value, one in self.values.items()
            if one.fate == ACKNOWLEDGED
            and (one.place is None or not (self._is_over(one.place) or self._tried.get(one.place)))
        ]

    def _is_over(self, place: Place) -> bool:
        return place in self._done or place in self.dropped or place in self.given_up

    # ---- the end

    def finish(self, content: Mapping[int, Sequence[tuple[int, bytes]]]) -> None:
        """Everything that a topic holds at the end, (offset, value) by partition."""
        for partition, records in content.items():
            for at, (offset, value) in enumerate(records):
                if at != offset:
                    self._say(f"offset {at} of partition {partition} is missing: {offset} comes in its place")
                    break
                self.seen(value, (partition, offset))
            self._check_order(partition, [value for _, value in records])
        there = {value for records in content.values() for _, value in records}
        for value, one in self.values.items():
            if one.fate == ACKNOWLEDGED and value not in there:
                self._say(f"{_short(value)} was acknowledged and is lost")

    def finish_queue(self) -> None:
        """A queue that is empty."""
        for value in self.left():
            self._say(f"{_short(value)} was acknowledged, is gone, and nobody has acknowledged it")
        partitions: dict[int, list[tuple[int, bytes]]] = {}
        for (partition, offset), value in sorted(self.places.items()):
            partitions.setdefault(partition, []).append((offset, value))
        for partition, records in partitions.items():
            self._check_order(partition, [value for _, value in records])

    def finish_dead(self, values: Sequence[bytes]) -> None:
        """Everything that the queue for dead letters was given in the end."""
        given_up = sorted(self.places[place] for place in self.given_up)
        if sorted(values) != given_up:
            lost = [_short(value) for value in given_up if value not in values]
            more = [_short(value) for value in values if values.count(value) > given_up.count(value)]
            self._say(f"of {len(given_up)} dead letters {lost} are lost, {more} are there too often")

    def _check_order(self, partition: int, values: Sequence[bytes]) -> None:
        last: dict[str, int] = {}
        for value in values:
            one = self.values.get(value)
            if one is None:
                continue
            if one.number < last.get(one.stream, -1):
                before = last[one.stream]
                self._say(f"partition {partition} has {one.number} of {one.stream} behind {before}")
            last[one.stream] = one.number

    def _say(self, what: str) -> None:
        self.broken(f"{self.name}: {what}")


def _short(value: bytes) -> str:
    return value[:40].split(b" ")[0].decode(errors="replace")
