"""Which member of a consumer group should have which partition: balanced, and with as few moves as possible. Pure.

    members with their topics, partitions, who should have what so far ──> who should have what now

Members of the same topics differ by at most one partition. A member keeps what it has unless balance takes it
away.
Balance is over all topics together, so that a group of many topics with one partition each is shared out, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

Place = tuple[int, int]
"""A partition of a topic: (topic id, partition)."""


def assign(
    members: Mapping[str, Iterable[int]],
    partitions: Mapping[int, int],
    targets: Mapping[Place, str],
    owners: Mapping[Place, str],
) -> dict[Place, str]:
    """Who should have each partition.

    `members`: the topics of each. `partitions`: how many each topic has. `targets`: who should have had what so
    far. `owners`: who holds what now; who holds what nobody should have had is asked first.
    """
    return _Assigning(members, partitions).assign(targets, owners)


class _Assigning:
    """One computation."""

    def __init__(self, members: Mapping[str, Iterable[int]], partitions: Mapping[int, int]) -> None:
        self._partitions = partitions
        self._held: dict[str, dict[int, set[int]]] = {name: {} for name in sorted(members)}
        self._load = dict.fromkeys(self._held, 0)
        self._members_of: dict[int, list[str]] = {topic: [] for topic in sorted(partitions)}
        for name in self._held:
            for topic in members[name]:
                if topic in self._members_of:
                    self._members_of[topic].append(name)
        self._wants = {topic: frozenset(names) for topic, names in self._members_of.items()}

    def assign(self, targets: Mapping[Place, str], owners: Mapping[Place, str]) -> dict[Place, str]:
        """See `assign`."""
        free = self._keep(targets, owners)
        if len(set(self._wants.values())) == 1:  # everybody wants the same, as members mostly do
            free += self._take_back(owners)
            free = self._give_back(free, owners)
            self._share_out(free)
        else:
            self._share_out(free)
            while any(self._level(topic, owners) for topic in self._members_of):
                pass
        return {
            (topic, partition): name
            for name, topics in self._held.items()
            for topic, numbers in topics.items()
            for partition in numbers
        }

    def _keep(self, targets: Mapping[Place, str], owners: Mapping[Place, str]) -> list[Place]:
        """Leave with everybody what it has; the rest is returned."""
        free: list[Place] = []
        for topic in self._members_of if self._held else ():
            for partition in range(self._partitions[topic]):
                place = (topic, partition)
                keeper = self._keeper(topic, targets.get(place), owners.get(place))
                if keeper is not None:
                    self._give(place, keeper)
                elif self._members_of[topic]:
                    free.append(place)
        return free

    def _keeper(self, topic: int, *names: str | None) -> str | None:
        return next((name for name in names if name in self._wants[topic]), None)

    def _give(self, place: Place, name: str) -> None:
        self._held[name].setdefault(place[0], set()).add(place[1])
        self._load[name] += 1

    def _share_out(self, free: list[Place]) -> None:
        """Give each of them to whoever has least."""
        heaps: dict[int, list[tuple[int, str]]] = {}
        for place in free:
            topic = place[0]
            if topic not in heaps:
                heaps[topic] = [(self._load[name], name) for name in self._members_of[topic]]
                heapq.heapify(heaps[topic])
            heap = heaps[topic]
            while heap[0][0] != self._load[heap[0][1]]:  # it was given something of another topic meanwhile
                heapq.heapreplace(heap, (self._load[heap[0][1]], heap[0][1]))
            name = heap[0][1]
            self._give(place, name)
            heapq.heapreplace(heap, (self._load[name], name))

    # where everybody wants the same

    def _take_back(self, owners: Mapping[Place, str]) -> list[Place]:
        """From everybody what is more than its share; best what it does not hold yet. Whoever has most may keep
        most, so that no more moves than must."""
        total = sum(self._partitions[topic] for topic in self._members_of)
        least, more = divmod(total, len(self._held))
        taken: list[Place] = []
        by_load = sorted(self._held, key=lambda name: (-self._load[name], name))
        for number, name in enumerate(by_load):
            share = least + (number < more)
            if self._load[name] <= share:
                continue
            places = sorted(
                ((topic, number) for topic, numbers in self._held[name].items() for number in numbers),
                key=lambda place: (owners.get(place, name) == name, place),
            )
            for topic, partition in places[: self._load[name] - share]:
                self._held[name][topic].remove(partition)
                taken.append((topic, partition))
            self._load[name] = share
        return taken

    def _give_back(self, free: list[Place], owners: Mapping[Place, str]) -> list[Place]:
        """To whoever holds it still, if that has less than its share; the rest is returned."""
        least = sum(self._partitions[topic] for topic in self._members_of) // len(self._held)
        rest: list[Place] = []
        for place in free:
            owner = owners.get(place)
            if owner in self._wants[place[0]] and owner is not None and self._load[owner] < least:
                self._give(place, owner)
            else:
                rest.append(place)
        return rest

    # where wishes differ

    def _level(self, topic: int, owners: Mapping[Place, str]) -> bool:
        """Move partitions of a topic from whoever has most to whoever has least; whether anything moved.

        Each move makes the sum of the squares of what members have smaller, so this comes to an end.
        """
        names, moved = self._members_of[topic], False
        while len(names) > 1:
            givers = [name for name in names if self._held[name].get(topic)]
            if not givers:
                break
            giver = max(givers, key=lambda name: (self._load[name], name))
            taker = min(names, key=lambda name: (self._load[name], name))
            if self._load[giver] < self._load[taker] + 2:
                break
            self._move(topic, giver, taker, owners)
            moved = True
        return moved

    def _move(self, topic: int, giver: str, taker: str, owners: Mapping[Place, str]) -> None:
        """One partition; best one that the taker holds, else one that the giver does not hold yet."""

        def worth(partition: int) -> tuple[bool, bool, int]:
            owner = owners.get((topic, partition))
            return owner == taker, owner != giver, partition

        partition = max(self._held[giver][topic], key=worth)
        self._held[giver][topic].remove(partition)
        self._load[giver] -= 1
        self._give((topic, partition), taker)
