"""Two and three nodes with their peer links: they find each other, lose each other, and tell their groups."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from plait.wire.errors import OutcomeUnknown, Overloaded, Unavailable
from replication.actor import Promise
from replication.machine import Entry
from replication.peers.channels import Answer
from replication.peers.lives import Life
from replication.peers.protocol import CONTROL
from replication.peers.settings import PeerSettings
from replication.raft.messages import Append, Beat
from tests.sim.environment import SimClock
from tests.sim.pauses import Gate
from tests.sim.peer_world import PORT, PeerWorld, Process, linked, play, until
from tests.sim.run import Trace

BEAT = Beat(1, 2, 5, 10, 0)


def append(index: int, payload: bytes = b"x") -> Append:
    return Append(1, 2, 5, index - 1, 5, [Entry(index, 5, 1, index, 1, payload)], 0, index)


def arrived(process: Process, source: int) -> bool:
    return (source, append(99)) in process.members[7].received


async def told(process: Process, group: int, *words: tuple[str, int]) -> None:
    await until(lambda: process.members[group].told == list(words))


@pytest.mark.parametrize("seed", range(40))
def test_two_that_dial_at_once_end_with_one_connection_of_each_kind_and_keep_it(seed: int) -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1), await world.start(2)
        a.connect(2)
        await trio.sleep(world.random.choice((0, 0, 0.001, 0.01)))
        b.connect(1)
        await until(lambda: linked(a, b))
        await trio.sleep(0.1)
        kept = [dict(one.peers.link(other.node).connections) for one, other in ((a, b), (b, a))]
        await trio.sleep(10)
        assert kept == [dict(one.peers.link(other.node).connections) for one, other in ((a, b), (b, a))]
        assert [process.peers.counters.connections_lost for process in (a, b)] == [0, 0]

    play(story, seed, settings=PeerSettings(backoff_min_ms=2))


def test_messages_of_many_groups_arrive_in_order_in_one_frame_of_a_turn() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        members = [b.member(group) for group in (7, 8, 9)]
        before = a.peers.counters.frames_sent
        for index in range(1, 31):
            a.peers.send(7 + index % 3, 2, append(index))
        await until(lambda: sum(len(member.received) for member in members) == 30)
        assert a.peers.counters.frames_sent - before <= 2  # one, and perhaps a beat
        indexes = [[message.sequence for _, message in member.received] for member in members]  # type: ignore[union-attr]  # appends
        assert indexes == [list(range(3, 31, 3)), list(range(1, 31, 3)), list(range(2, 31, 3))]
        assert all(node == 1 for member in members for node, _ in member.received)

    play(story)


def test_messages_for_a_group_that_is_not_there_and_to_a_node_that_is_not_known_are_dropped() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        a.peers.send(7, 2, BEAT)
        a.peers.send(7, 3, BEAT)
        await until(lambda: b.peers.counters.unknown_group == 1)
        assert a.peers.counters.dropped_down == 1

    play(story)


def test_a_connection_that_breaks_is_made_anew_and_the_groups_that_spoke_are_told() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        speaker, silent, receiver = a.member(7), a.member(8), b.member(7)
        a.peers.send(7, 2, append(1))
        await until(lambda: receiver.received)
        world.internet.reset("n1", between="n2")
        await until(lambda: not linked(a, b))
        a.peers.send(7, 2, append(2))  # while it is away: waits for the next connection
        await until(lambda: len(receiver.received) == 2)
        await until(lambda: linked(a, b))
        assert speaker.told == [("unreachable", 2)]
        assert silent.told == []

    play(story)


def test_a_killed_process_is_down_at_once_because_its_address_refuses() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        member = a.member(7)
        began = trio.current_time()
        world.kill(b)
        await told(a, 7, ("down", 2))
        assert trio.current_time() - began < 0.2
        assert not a.peers.is_up(2)
        assert member.told == [("down", 2)]

    play(story)


def test_a_machine_without_power_is_down_after_the_silence_and_up_when_it_is_back() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        a.member(7)
        began = trio.current_time()
        world.kill(b, silent=True)
        await told(a, 7, ("down", 2))
        assert 0.8 < trio.current_time() - began < 1.3
        b = await world.start(2)
        b.connect(1)
        await told(a, 7, ("down", 2), ("up", 2))
        await until(lambda: linked(a, b))

    play(story)


@pytest.mark.parametrize("life", [1, 2])
def test_a_restart_in_the_same_or_a_later_life_is_down_and_up(life: int) -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1), await world.start(2, life=1)
        seen: list[tuple[int, int]] = []

        async def keep(node: int, found: Life) -> None:
            seen.append((node, found.number))

        a.peers.keep = keep
        b.connect(1)  # only one side knows the other's address
        await until(lambda: linked(a, b))
        a.member(7)
        world.kill(b, silent=True)
        b = await world.start(2, life=life)
        b.connect(1)
        await told(a, 7, ("down", 2), ("up", 2))
        await until(lambda: linked(a, b))
        assert sorted(set(seen)) == ([(2, 1)] if life == 1 else [(2, 1), (2, 2)])

    play(story)


def test_a_node_whose_disk_was_put_back_is_refused_and_told_why() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1), await world.start(2, life=5)
        a.connect(2)
        await until(lambda: linked(a, b))
        world.kill(b)
        b = await world.start(2, life=4)
        b.connect(1)
        await until(lambda: b.peers.refusals and a.peers.refusals)
        assert "this node's disk is older than what it was" in b.peers.refusals[1]
        assert "this node's disk is older than what it was" in a.peers.refusals[2]
        await trio.sleep(5)
        assert not a.peers.is_up(2)
        assert not b.peers.is_up(1)

    play(story)


def test_nodes_of_two_clusters_do_not_mix() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1), await world.start(2, cluster="another")
        a.connect(2)
        await until(lambda: a.peers.refusals)
        assert a.peers.refusals == {
            2: "you are of cluster 'tested', I am of 'another': no node is part of both",
        }
        assert b.peers.counters.handshakes_refused >= 1
        assert not b.peers.nodes_up()

    play(story)


def test_an_address_where_another_node_answers_is_refused() -> None:
    async def story(world: PeerWorld) -> None:
        a, _ = await world.start(1), await world.start(3)
        a.peers.connect_to(2, "n3", PORT)
        await until(lambda: a.peers.refusals)
        assert a.peers.refusals == {2: "you meant node 2, this is node 3: check the addresses"}

    play(story)


def test_a_partition_takes_both_sides_down_and_heals() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        a.member(7)
        b.member(7)
        world.internet.cut("n1", "n2")
        world.internet.cut("n2", "n1")
        await told(a, 7, ("down", 2))
        await told(b, 7, ("down", 1))
        await trio.sleep(30)
        world.internet.heal()
        await told(a, 7, ("down", 2), ("up", 2))
        await told(b, 7, ("down", 1), ("up", 1))
        await until(lambda: linked(a, b))

    play(story)


def test_a_partition_in_one_direction_becomes_one_in_both() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        a.member(7)
        b.member(7)
        world.internet.cut("n1", "n2")
        await told(b, 7, ("down", 1))  # hears nothing
        await told(a, 7, ("down", 2))  # was hung up on, and cannot connect
        world.internet.heal()
        await until(lambda: linked(a, b))

    play(story)


def test_one_of_three_that_two_cannot_reach_is_seen_by_the_third() -> None:
    async def story(world: PeerWorld) -> None:
        nodes = [await world.start(node) for node in (1, 2, 3)]
        for process in nodes:
            process.connect(*(node for node in (1, 2, 3) if node != process.node))
        a, b, c = nodes
        await until(lambda: linked(a, b) and linked(b, c) and linked(a, c))
        for pair in (("n1", "n2"), ("n2", "n1")):
            world.internet.cut(*pair)
        await until(lambda: not a.peers.is_up(2) and not b.peers.is_up(1))
        assert (a.peers.nodes_up(), b.peers.nodes_up(), c.peers.nodes_up()) == ([3], [3], [1, 2])

    play(story)


def test_a_slow_node_gets_words_in_time_and_too_many_appends_are_dropped_with_a_word_to_the_group() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        member, receiver = a.member(7), b.member(7)
        for link in (("n1", "n2"),):
            world.internet.cut(*link)  # nothing moves for a while, shorter than the silence
        for index in range(1, 101):
            a.peers.send(7, 2, append(index, bytes(100_000)))
            await trio.lowlevel.checkpoint()
        a.peers.send(7, 2, BEAT)
        await until(lambda: member.told)
        assert a.peers.counters.dropped_full > 0
        world.internet.heal()
        await until(lambda: BEAT in [message for _, message in receiver.received])
        arrived = [message.sequence for _, message in receiver.received if isinstance(message, Append)]
        assert arrived == list(range(1, len(arrived) + 1))
        assert dict.fromkeys(member.told) == {("unreachable", 2): None}
        assert linked(a, b)

    play(story, settings=PeerSettings(queue_bytes=2_000_000, frame_bytes=100_000))


def test_clocks_that_run_at_other_rates_take_nobody_down() -> None:
    async def story(world: PeerWorld) -> None:
        a = await world.start(1, clock=SimClock(rate=1.2))
        b = await world.start(2, clock=SimClock(rate=0.8, offset_ns=10**15))
        a.connect(2)
        b.connect(1)
        await until(lambda: linked(a, b))
        a.member(7)
        await trio.sleep(60)
        assert a.members[7].told == []

    play(story)


@pytest.mark.parametrize("pause_s", [0.8, 5.0])
def test_a_process_that_was_paused_does_not_take_the_others_for_dead(pause_s: float) -> None:
    async def story(world: PeerWorld) -> None:
        gate = Gate()
        gate.install()
        a, b = await world.pair()
        a.member(7)
        b.member(7)
        gate.pause("n1")
        await trio.sleep(pause_s)
        gate.resume("n1")
        await trio.sleep(5)
        assert linked(a, b)
        assert [word for word, _ in a.members[7].told] == []
        assert [word for word, _ in b.members[7].told] == ([] if pause_s < 1 else ["down", "up"])

    play(story)


class Slow:
    """A network in which what the first two connections carry takes a second. Implements `network.Weather`."""

    def __init__(self) -> None:
        self.connections = 0

    def stretches(self, source: str, target: str, port: int) -> tuple[Late | None, None]:
        self.connections += 1
        return (Late() if self.connections <= 2 else None), None


class Late:
    """One direction of a connection that is slow behind its handshake."""

    def __init__(self) -> None:
        self._spared = 2

    def judge(self, data: bytes) -> list[tuple[float, bool, bytes]]:
        self._spared -= 1
        return [(0.0 if self._spared >= 0 else 0.9, False, data)]


def test_what_comes_late_on_a_connection_that_was_replaced_is_not_heard() -> None:
    async def story(world: PeerWorld) -> None:
        world.internet.weather = Slow()
        a, b = await world.start(1), await world.start(2)
        receiver = b.member(7)
        a.connect(2)
        await until(lambda: linked(a, b))
        old, heard = a.peers.link(2).connections[CONTROL], b.peers.link(1).connections[CONTROL]
        assert old is not None
        assert heard is not None
        a.peers.send(7, 2, append(1))
        await until(lambda: a.peers.counters.messages_sent == 1)
        old.close()  # with the frame still on its way
        await until(lambda: a.peers.link(2).connections[CONTROL] not in (None, old))
        a.peers.send(7, 2, append(2))
        await trio.sleep(5)
        assert receiver.received == [(1, append(2))]
        b.peers.link(1).hear(heard, [], memoryview(b""))  # what had been read when its connection was replaced
        assert b.peers.counters.frames_ignored == 1

    play(story)


def test_an_idle_pair_says_little() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        before = a.peers.link(2).connections[CONTROL].bytes_sent  # type: ignore[union-attr]  # it stands
        await trio.sleep(10)
        connection = a.peers.link(2).connections[CONTROL]
        assert connection is not None
        assert connection.bytes_sent - before < 50 * 40
        assert b.peers.counters.beats_heard >= 47

    play(story)


def test_a_forgotten_node_is_told_so() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        a.member(7)
        a.peers.forget(2)
        await told(a, 7, ("down", 2))
        await until(lambda: b.peers.refusals)
        assert "node 2 was removed from this cluster" in b.peers.refusals[1]
        a.connect(2)
        await until(lambda: linked(a, b))

    play(story)


def test_closing_is_seen_by_the_others_at_once() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        a.member(7)
        began = trio.current_time()
        await b.peers.close()
        await told(a, 7, ("down", 2))
        assert trio.current_time() - began < 0.2

    play(story)


def test_thousands_of_groups_are_told_in_slices() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        members = [a.member(group) for group in range(3_000)]
        world.kill(b)
        await until(lambda: members[-1].told)
        assert all(member.told == [("down", 2)] for member in members)

    play(story)


# who sleeps


def test_groups_asleep_on_both_sides_stay_asleep_and_one_that_is_not_is_woken_alone() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        for group in range(200):
            for process in (a, b):
                process.member(group)
                process.peers.asleep(group, 3, 1, [2])
        await trio.sleep(5)
        assert not any(member.told for process in (a, b) for member in process.members.values())
        a.peers.awake(70)  # the leader woke, and nobody was told
        await until(lambda: b.members[70].told == [("wake", 0)])
        woken = {group for process in (a, b) for group, member in process.members.items() if member.told}
        assert woken == {group for group in range(200) if group % 64 == 70 % 64}
        for process in (a, b):
            for group in woken:
                process.peers.asleep(group, 4, 1, [2])
        await trio.sleep(5)
        assert b.members[70].told == [("wake", 0)]

    play(story)


def test_a_leader_whose_follower_does_not_sleep_is_woken() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        member = a.member(7)
        b.member(7)
        a.peers.asleep(7, 3, 1, [2])
        await until(lambda: member.told == [("wake", 0)])
        assert b.members[7].told == []

    play(story)


def test_groups_that_come_and_go_all_the_time_wake_nobody() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        for process in (a, b):
            for group in range(640):
                process.member(group)
        for step in range(1_000):
            group = world.random.randrange(640)
            first, second = (b, a) if step % 2 else (a, b)
            first.peers.asleep(group, step, 1, [2])
            await trio.sleep(0.005)
            second.peers.asleep(group, step, 1, [2])
        await trio.sleep(2)
        assert a.peers.counters.mismatches == b.peers.counters.mismatches == 0

    play(story)


# questions and answers


def echo(node: int, head: list[object], payload: memoryview) -> Promise[Answer]:
    promise: Promise[Answer] = Promise()
    promise.resolve(([node, *head], [payload, b"!"]))
    return promise


def silence(node: int, head: list[object], payload: memoryview) -> Promise[Answer]:
    return Promise()


def test_questions_of_any_size_are_answered_the_small_ones_first() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        b.peers.serve("echo", echo)
        large = a.peers.ask(2, "echo", ["large"], [bytes(300_000), b"end"])
        small = [a.peers.ask(2, "echo", [number], [b"p"]) for number in range(50)]
        for number, promise in enumerate(small):
            head, payload = await promise.wait()
            assert (head, bytes(payload)) == ([1, number], b"p!")
        assert not large.done
        head, payload = await large.wait()
        assert head == [1, "large"]
        assert bytes(payload[-4:]) == b"end!"
        assert len(payload) == 300_004

    play(story, settings=PeerSettings(piece_bytes=2_000, bulk_frame_bytes=8_000))


def test_a_question_that_nobody_can_have_read_was_not_done_and_one_that_was_sent_is_unknown() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        b.peers.serve("silence", silence)
        with pytest.raises(Unavailable):
            await a.peers.ask(3, "silence", []).wait()
        sent = a.peers.ask(2, "silence", [])
        await until(lambda: b.peers.link(1).questions_served == 1)
        late = a.peers.ask(2, "silence", [], timeout_ms=50)
        with pytest.raises(OutcomeUnknown):
            await late.wait()
        world.internet.reset("n1", between="n2")
        huge = a.peers.ask(2, "silence", [], [bytes(10_000_000)])
        with pytest.raises(OutcomeUnknown):
            await sent.wait()
        with pytest.raises(Unavailable):
            await huge.wait()
        await until(lambda: linked(a, b))
        assert b.peers.link(1).questions_served == 0

    play(story)


def test_more_than_may_be_outstanding_is_refused_on_either_side() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        b.peers.serve("silence", silence)
        asked = [a.peers.ask(2, "silence", [number]) for number in range(5)]
        refused = [promise for promise in asked if promise.done]
        assert [type(promise.error) for promise in refused] == [Overloaded]
        with pytest.raises(Unavailable, match="does not serve"):
            await b.peers.ask(1, "silence", []).wait()

    play(story, settings=PeerSettings(asks_max=4))


def test_a_handler_that_fails_is_an_answer_and_harms_nobody() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()

        def broken(node: int, head: list[object], payload: memoryview) -> Promise[Answer]:
            raise Overloaded("no room", retry_after_ms=7) if head else ZeroDivisionError

        b.peers.serve("broken", broken)
        with pytest.raises(Overloaded) as refused:
            await a.peers.ask(2, "broken", [1]).wait()
        assert refused.value.retry_after_s == 0.007
        with pytest.raises(Exception, match="defect"):
            await a.peers.ask(2, "broken", []).wait()
        assert linked(a, b)

    play(story)


# strangers


def test_connections_that_say_nothing_are_closed_in_time_and_bounded_and_nodes_still_get_in() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1), await world.start(2)
        crowd = [await world.internet.network("evil").connect("n1", PORT) for _ in range(50)]
        await until(lambda: a.peers.knocking == 8)
        a.connect(2)
        b.connect(1)
        await until(lambda: linked(a, b))
        await until(lambda: a.peers.knocking == 0)
        assert a.peers.counters.handshakes_late == len(crowd) == 50

    async def slow(world: PeerWorld) -> None:
        """A byte now and then does not buy more time."""
        a = await world.start(1)
        stream = await world.internet.network("evil").connect("n1", PORT)
        began = trio.current_time()

        async def drip() -> None:
            while True:
                await stream.send_all(b"\0")
                await trio.sleep(0.5)

        with pytest.raises(trio.BrokenResourceError):
            await drip()
        assert trio.current_time() - began < 4
        assert a.peers.knocking == 0

    play(story, settings=PeerSettings(handshakes_max=8))
    play(slow)


def test_a_node_that_may_have_joined_since_is_let_in_and_one_that_should_be_known_is_not() -> None:
    async def story(world: PeerWorld) -> None:
        old = await world.start(2)
        known, newer, newest, stranger = [await world.start(number) for number in (4, 5, 6, 3)]
        old.peers.members_only = True
        old.connect(4)
        for other in (known, newest, newer, stranger):
            other.connect(2)
            await until(lambda other=other: linked(old, other) or old.peers.counters.handshakes_refused)  # type: ignore[misc]
        assert [linked(old, each) for each in (known, newer, newest, stranger)] == [True, True, True, False]

    play(story)


def test_noise_at_the_door_is_answered_with_a_sentence() -> None:
    async def story(world: PeerWorld) -> None:
        a = await world.start(1)
        stream = await world.internet.network("evil").connect("n1", PORT)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n")
        answer = b""
        while b"connection ends" not in answer:
            answer += await stream.receive_some(1_000)
        assert not a.peers.nodes_up()

    play(story)


class Rot:
    """A network that flips a bit in the middle of the first large piece. Implements `network.Weather`."""

    def __init__(self) -> None:
        self.flips = 0

    def stretches(self, source: str, target: str, port: int) -> tuple[Rot, Rot]:
        return self, self

    def judge(self, data: bytes) -> list[tuple[float, bool, bytes]]:
        if len(data) > 500 and not self.flips:
            self.flips = 1
            data = data[:300] + bytes([data[300] ^ 1]) + data[301:]
        return [(0.0, False, data)]


def test_a_damaged_frame_ends_its_connection_and_nothing_of_it_is_handed_on() -> None:
    async def story(world: PeerWorld) -> None:
        rot = world.internet.weather = Rot()
        a, b = await world.pair()
        receiver = b.member(7)
        a.peers.send(7, 2, append(1, bytes(500)))
        await until(lambda: rot.flips and b.peers.counters.connections_lost)
        await until(lambda: linked(a, b))
        assert receiver.received == []
        a.peers.send(7, 2, append(2, bytes(500)))
        await until(lambda: receiver.received)

    play(story)


@pytest.mark.parametrize("seed", range(25))
def test_after_any_trouble_all_are_linked_again_and_believe_the_same(seed: int) -> None:
    async def trouble(world: PeerWorld, nodes: dict[int, Process]) -> None:
        random, internet = world.random, world.internet
        one, other = random.sample(["n1", "n2", "n3"], 2)
        match random.randrange(6):
            case 0:
                internet.reset(one, between=other)
            case 1:
                internet.cut(one, other)
            case 2:
                internet.heal()
            case 3 | 4:
                node = random.choice([1, 2, 3])
                world.kill(nodes[node], silent=random.random() < 0.5)
                await trio.sleep(random.choice((0, 0.05, 1.5)))
                nodes[node] = await start(world, node)
            case _:
                nodes[int(one[1])].peers.send(7, int(other[1]), append(1, bytes(random.randrange(100_000))))
        await trio.sleep(random.choice((0, 0.001, 0.05, 0.7, 2)))

    async def start(world: PeerWorld, node: int) -> Process:
        process = await world.start(node)
        process.member(7)
        process.connect(*(other for other in (1, 2, 3) if other != node))
        return process

    async def story(world: PeerWorld) -> None:
        nodes = {node: await start(world, node) for node in (1, 2, 3)}
        for _ in range(40):
            await trouble(world, nodes)
        world.internet.heal()
        pairs = [(nodes[1], nodes[2]), (nodes[1], nodes[3]), (nodes[2], nodes[3])]
        await until(lambda: all(linked(*pair) for pair in pairs))
        await trio.sleep(5)
        before = [process.peers.counters.connections_lost for process in nodes.values()]
        await trio.sleep(5)
        assert before == [process.peers.counters.connections_lost for process in nodes.values()]
        for process in nodes.values():
            for other in process.peers.nodes_up():
                words = [word for word, node in process.members[7].told if node == other and word != "unreachable"]
                assert words == [("up", "down")[at % 2] for at in range(len(words))][: len(words)]
                assert words[-1] == "up"
        for node, process in nodes.items():
            for other in process.peers.nodes_up():
                process.peers.send(7, other, append(99))
                await until(partial(arrived, nodes[other], node))

    play(story, seed)


def test_equal_seeds_give_equal_runs() -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.pair()
        b.member(7)
        for index in range(1, 50):
            a.peers.send(7, 2, append(index))
            await trio.sleep(0.01)
            if index % 20 == 0:
                world.internet.reset("n1")
        await trio.sleep(1)

    digests = []
    for _ in range(2):
        trace = Trace()
        play(story, 5, trace=trace)
        digests.append(trace.digest())
    assert digests[0] == digests[1]
