"""Who should have which partition: balanced, and with as few moves as there can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.group_assignment import Place, assign

MEMBERS = ["ann", "ben", "cat", "dan", "eve"]


def loads(targets: dict[Place, str], members: set[str]) -> list[int]:
    return sorted(sum(name == each for name in targets.values()) for each in members)


def fewest_moves(before: dict[Place, str], places: int, members: set[str]) -> int:
    """Every balanced outcome gives some members one more than others: best to those who have most."""
    had = sorted((sum(name == each for name in before.values()) for each in members), reverse=True)
    least, more = divmod(places, len(members))
    quotas = [least + (number < more) for number in range(len(members))]
    return sum(max(0, has - quota) for has, quota in zip(had, quotas, strict=True))


@given(
    st.lists(st.sets(st.sampled_from(MEMBERS), min_size=1), min_size=1, max_size=6),
    st.dictionaries(st.integers(1, 3), st.integers(1, 9), min_size=1),
)
def test_members_of_the_same_topics_differ_by_one_at_most_and_little_moves(
    casts: list[set[str]], partitions: dict[int, int]
) -> None:
    targets: dict[Place, str] = {}
    for members in casts:
        before = {place: name for place, name in targets.items() if name in members}
        targets = assign(dict.fromkeys(members, partitions), partitions, targets, targets)
        assert set(targets) == {(topic, number) for topic in partitions for number in range(partitions[topic])}
        spread = loads(targets, members)
        assert spread[-1] - spread[0] <= 1
        moved = sum(targets[place] != name for place, name in before.items())
        assert moved == fewest_moves(before, sum(partitions.values()), members)


@given(
    st.dictionaries(st.sampled_from(MEMBERS), st.sets(st.integers(1, 4)), min_size=1),
    st.dictionaries(st.integers(1, 4), st.integers(1, 6), min_size=1),
)
def test_members_of_different_topics_get_only_what_they_want(
    members: dict[str, set[int]], partitions: dict[int, int]
) -> None:
    targets = assign(members, partitions, {}, {})
    wanted = {topic for topics in members.values() for topic in topics}
    assert {topic for topic, _ in targets} == wanted & partitions.keys()
    load = {name: sum(target == name for target in targets.values()) for name in members}
    for (topic, _), name in targets.items():
        assert topic in members[name]
        rivals = [load[other] for other in members if topic in members[other]]
        assert load[name] <= min(rivals) + 1


def test_whoever_holds_what_nobody_should_have_keeps_it() -> None:
    members = {"ann": [1], "ben": [1]}
    targets = assign(members, {1: 4}, {(1, 0): "gone", (1, 1): "gone"}, {(1, 0): "ben", (1, 1): "ben"})
    assert (targets[1, 0], targets[1, 1]) == ("ben", "ben")


def test_what_the_taker_still_holds_is_moved_first() -> None:
    before = dict.fromkeys([(1, 0), (1, 1), (1, 2), (1, 3)], "ann")
    targets = assign({"ann": [1], "ben": [1]}, {1: 4}, before, before | {(1, 0): "ben"})
    assert targets[1, 0] == "ben"
