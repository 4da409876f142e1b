"""What is known of the readers that share a subscription: a partition has one of them, and nothing is skipped."""

from __future__ import annotations

from collections.abc import Callable

from plait.client.group import GroupSubscription


class Sharing:
    """One group's members, as they see themselves."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        self._broken = broken
        self._members: dict[GroupSubscription, str] = {}
        self._readers: dict[tuple[int, int], str] = {}
        """By partition and generation, the member that read it."""
        self.clocks_agree = True
        """Nobody's time runs much faster than others': a session is not over for the brokers before it is for the
        member."""
        self._reached: dict[int, int] = {}
        """By partition, the offset behind the last one that any of them was given."""

    def begin(self, member: GroupSubscription, who: str) -> None:
        """A member comes in."""
        self._members[member] = who

    def end(self, member: GroupSubscription) -> None:
        """It is gone."""
        del self._members[member]

    def given(self, member: GroupSubscription, partition: int, offset: int) -> None:
        """It is given a message."""
        who = self._members[member]
        before = self._reached.get(partition, 0)
        if offset > before:
            self._broken(
                f"{who} is given {offset} of partition {partition}, and nobody had anything from {before} on"
            )
        self._reached[partition] = max(before, offset + 1)
        reader = self._readers.setdefault((partition, member.generation), member.member)
        if reader != member.member:
            self._broken(
                f"partition {partition} is read by {reader} and {member.member} in generation {member.generation}"
            )
        for other, name in self._members.items() if self.clocks_agree else ():
            if other is not member and other.holds(partition):
                self._broken(f"{who} is given {offset} of partition {partition}, which {name} holds")
