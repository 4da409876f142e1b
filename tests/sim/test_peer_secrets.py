"""Nodes that share a secret, nodes that do not, and strangers at the nodes' door and address."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio

from replication.peers.connection import next_word
from replication.peers.joining import Join, Joined, ask
from replication.peers.lives import Life
from replication.peers.proof import DIALLER, Proofs, key_of
from replication.peers.protocol import (
    CONTROL,
    OLDER_LIFE,
    Hearing,
    Hello,
    Identity,
    Refusal,
    confirm_word,
    encode_word,
)
from replication.peers.settings import PeerSettings
from tests.sim.peer_world import CLUSTER, PORT, PeerWorld, linked, play, until

SECRET = b"known to all nodes of it"


@pytest.mark.parametrize("seed", range(20))
def test_nodes_that_share_a_secret_are_linked_whoever_dials(seed: int) -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1, secret=SECRET), await world.start(2, secret=SECRET)
        for one, other in world.random.sample([(a, 2), (b, 1)], world.random.choice((1, 2))):
            one.connect(other)
            await trio.sleep(world.random.choice((0, 0.001, 0.01)))
        await until(lambda: linked(a, b))
        world.internet.reset("n1")
        await trio.sleep(5)
        assert linked(a, b)
        assert a.peers.refusals == b.peers.refusals == {}

    play(story, seed, settings=PeerSettings(backoff_min_ms=2))


@pytest.mark.parametrize(
    ("mine", "theirs", "sentence"),
    [
        (SECRET, b"", "you have a cluster secret, and I have none"),
        (b"", SECRET, "I have a cluster secret, and you showed none"),
        (SECRET, b"the secret of others", "your cluster secret is another one than mine"),
    ],
)
def test_nodes_that_do_not_share_their_secret_do_not_meet(mine: bytes, theirs: bytes, sentence: str) -> None:
    async def story(world: PeerWorld) -> None:
        a, b = await world.start(1, secret=mine), await world.start(2, secret=theirs)
        met: list[int] = []

        async def keep(node: int, life: Life) -> None:
            met.append(node)

        a.peers.keep = b.peers.keep = keep
        a.connect(2)
        await until(lambda: a.peers.refusals)
        assert a.peers.refusals[2].startswith(sentence)
        await trio.sleep(5)
        assert not a.peers.nodes_up()
        assert not b.peers.nodes_up()
        assert not met

    play(story)


def test_nobody_without_the_secret_learns_or_leaves_anything() -> None:
    """A stranger that says it is node 2 in a late life, which would shut the true one out for good."""

    async def story(world: PeerWorld) -> None:
        a = await world.start(1, secret=SECRET)
        network = world.internet.network("stranger")
        for cluster in (CLUSTER, "another"):
            for node, target in ((2, 1), (2, 3), (1, 1)):
                stream = await network.connect("n1", PORT)
                hello = Hello(Identity(cluster, node, 1_000), 9, CONTROL, target)
                await stream.send_all(encode_word(hello.word()))
                hearing = Hearing()
                code, sentence, extras = (await next_word(stream, hearing))[1:]
                assert (code, extras) == ("secret", {})
                assert "another" not in sentence
                await stream.aclose()
        assert a.peers.lives == {}
        b = await world.start(2, secret=SECRET)
        b.connect(1)
        await until(lambda: linked(a, b))

    play(story)


def test_a_stranger_at_a_nodes_address_cannot_tell_another_that_its_disk_is_old() -> None:
    async def story(world: PeerWorld) -> None:
        a = await world.start(1, secret=SECRET)
        told: list[str] = []
        a.peers.on_outlived = told.append
        (listener,) = await world.internet.network("n2").listen("n2", PORT)
        a.connect(2)
        for _ in range(2):
            stream = await listener.accept()
            await next_word(stream, Hearing())
            await stream.send_all(encode_word(Refusal(OLDER_LIFE, "your disk is old").word()))
            await stream.send_eof()
            await stream.receive_some()
        await until(lambda: a.peers.refusals)
        assert not told
        await listener.aclose()
        world.internet.crash("n2")
        b = await world.start(2, life=9, secret=SECRET)
        b.connect(1)
        await until(lambda: linked(a, b))
        world.kill(b)
        b = await world.start(2, life=4, secret=SECRET)
        b.peers.on_outlived = told.append
        b.connect(1)
        await until(lambda: told)  # but a node that proves itself can

    play(story)


JOIN = Join(12345, "new", "n4:7000", "", "", 1)


async def asked(world: PeerWorld, secret: bytes) -> Joined:
    stream = await world.internet.network("newcomer").connect("n1", PORT)
    return await ask(stream, JOIN, Proofs(key_of(secret), DIALLER, Random(3)))


def let_in_and_remember(process: Any) -> list[Join]:
    let_in: list[Join] = []

    async def one(join: Join) -> Joined:
        let_in.append(join)
        return Joined(1, CLUSTER, 4, {1: "n1:7000"})

    process.peers.let_in = one
    return let_in


@pytest.mark.parametrize("secret", [b"", SECRET])
def test_a_newcomer_that_knows_what_the_nodes_know_is_given_an_id(secret: bytes) -> None:
    async def story(world: PeerWorld) -> None:
        let_in = let_in_and_remember(await world.start(1, secret=secret))
        joined = await asked(world, secret)
        assert (joined.node, joined.addresses) == (4, {1: "n1:7000"})
        assert [join.disk for join in let_in] == [12345]

    play(story)


@pytest.mark.parametrize(("mine", "theirs"), [(SECRET, b""), (b"", SECRET), (SECRET, b"the secret of others")])
def test_a_newcomer_that_does_not_is_told_so_and_nothing_else(mine: bytes, theirs: bytes) -> None:
    async def story(world: PeerWorld) -> None:
        let_in = let_in_and_remember(await world.start(1, secret=mine))
        with pytest.raises(Refusal) as found:
            await asked(world, theirs)
        assert found.value.code == "secret"
        assert not let_in

    play(story)


def test_a_copy_of_a_newcomers_words_lets_nobody_in() -> None:
    async def story(world: PeerWorld) -> None:
        a = await world.start(1, secret=SECRET)
        let_in = let_in_and_remember(a)
        newcomer = Proofs(key_of(SECRET), DIALLER, Random(3))
        said = [newcomer.say(JOIN.word())]
        for copy in (False, True):
            stream = await world.internet.network("newcomer").connect("n1", PORT)
            hearing = Hearing()
            await stream.send_all(encode_word(said[0]))
            challenge = await next_word(stream, hearing)
            if not copy:
                newcomer.hear(challenge)
                said.append(newcomer.say(confirm_word()))
            await stream.send_all(encode_word(said[1]))
            answer = await next_word(stream, hearing)
            assert answer[0:2] == ([3, "secret"] if copy else [6, 1])
            await stream.aclose()
        assert len(let_in) == 1

    play(story)
