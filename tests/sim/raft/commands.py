"""The commands of scripts (tests/sim/raft/scenarios/README.md tells what they mean)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from plait.wire.errors import PlaitError
from replication.machine import Proposal, Role
from replication.raft.core import RaftCore
from replication.raft.messages import Message, VoteAnswer, VoteRequest
from replication.raft.settings import NS_PER_MS, RaftSettings
from tests.sim.raft import words
from tests.sim.raft.replica import Replica
from tests.sim.raft.scripted import ALL_ENTRIES, Scripted, Which

F = TypeVar("F", bound="Callable[..., None]")

ELECTIONS_MAX = 3
"""Times that whoever is to be elected tries: at first it may not know the term of the others."""
COMMANDS: dict[str, Callable[..., None]] = {}
"""By name. Each is given the player and the words behind the name."""


class Misspelt(ValueError):
    """A script that says what cannot be understood."""


class Player:
    """Plays the commands of one script."""

    def __init__(self) -> None:
        self._cluster: Scripted | None = None

    @property
    def begun(self) -> bool:
        """There is something to play with."""
        return self._cluster is not None

    @property
    def cluster(self) -> Scripted:
        """What the script plays with."""
        if self._cluster is None:
            raise Misspelt("a script begins with: nodes N")
        return self._cluster

    @cluster.setter
    def cluster(self, cluster: Scripted) -> None:
        self._cluster = cluster

    def do(self, line: str) -> list[str]:
        """One command; what it prints. Raises AssertionError where a promise is broken."""
        name, *args = line.split()
        if name not in COMMANDS:
            raise Misspelt(f"there is no command {name!r}; there are {', '.join(COMMANDS)}")
        COMMANDS[name](self, *args)
        self.cluster.settle()
        lines, self.cluster.lines = self.cluster.lines, []
        return lines

    def replica(self, word: str) -> Replica:
        """One that a script names."""
        return self.cluster.replicas[int(word)]

    def core(self, word: str) -> RaftCore:
        """Of one that is not down."""
        core = self.replica(word).core
        if core is None:
            raise Misspelt(f"{word} is down")
        return core

    def named(self, args: tuple[str, ...]) -> list[Replica]:
        """Those named, or all."""
        return [self.replica(word) for word in args] or list(self.cluster.replicas.values())

    def given(self, word: str) -> None:
        """An input was given to a core."""
        self.cluster.after(self.replica(word))
        self.cluster.settle()

    def ask(self, word: str, what: Callable[[], Any]) -> Any:
        """Ask a core for something; None where it refuses."""
        try:
            return what()
        except PlaitError as error:
            self.cluster.tell(
                f"{word} refuses: {type(error).__name__}, {str(error).partition(';')[0]}", always=True
            )
            return None

    def quietly(self, what: Callable[[], object]) -> None:
        """Only what has become of everybody is told."""
        cluster = self.cluster
        before = {each.id: words.of_replica(each) for each in cluster.replicas.values()}
        cluster.quiet += 1
        what()
        cluster.settle()
        cluster.quiet -= 1
        for replica in cluster.replicas.values():
            now = words.of_replica(replica)
            if before.get(replica.id) != now:
                cluster.tell(now)


def command(function: F) -> F:
    """It is one, by its name."""
    COMMANDS[function.__name__.rstrip("_")] = function
    return function


def _which(words_: tuple[str, ...]) -> Which:
    """From `A>B [Kind]`, where A and B may be *."""
    source, arrow, target = words_[0].partition(">")
    if not arrow:
        raise Misspelt(f"{words_[0]!r} should say from whom to whom, as in 1>2 or *>3")
    kind = words_[1] if len(words_) > 1 else ""
    names = [one.__name__ for one in Message.__args__]
    if kind and kind not in names:
        raise Misspelt(f"there is no message {kind!r}; there are {', '.join(names)}")
    return Which(_number(source), _number(target), kind)


def _number(word: str) -> int:
    return 0 if word == "*" else int(word)


def _some(player: Player, args: tuple[str, ...]) -> list[Message]:
    """Those that fly and are meant; with `first` or `last` behind them, one of them."""
    ends = {"first": slice(0, 1), "last": slice(-1, None)}
    end = ends.get(args[-1])
    found = player.cluster.matching(_which(args[:-1] if end else args))[end or slice(None)]
    if not found and args != ("*>*",):
        player.cluster.tell("there is no such message")
    return found


def _settings(pairs: tuple[str, ...]) -> dict[str, int]:
    return {name: int(value) for name, _, value in (pair.partition("=") for pair in pairs)}


# ---- the cluster


@command
def nodes(player: Player, number: str, *pairs: str) -> None:
    """Voters 1 to N begin a group."""
    if player.begun:
        raise Misspelt("a script is about one group")
    settings = {"sleeps": 0, **_settings(pairs)}
    cache = settings.pop("cache", 1 << 30)
    player.cluster = cluster = Scripted(RaftSettings(**settings))  # type: ignore[arg-type]  # 0 and 1 are bools
    cluster.quiet += 1
    cluster.found({one: one for one in range(1, int(number) + 1)})
    for replica in cluster.replicas.values():
        replica.log.cache_entries = cache
        cluster.start(replica)
    cluster.quiet -= 1


@command
def add(player: Player, number: str) -> None:
    """A replica with nothing in its log is started."""
    cluster = player.cluster
    cluster.start(cluster.make(int(number), int(number)))


@command
def crash(player: Player, number: str, kept: str = "0") -> None:
    """It loses what is not durable but for the oldest `kept` writes."""
    replica = player.replica(number)
    cluster = player.cluster
    cluster.crash(replica, int(kept))
    cluster.offers.pop(replica.id, None)
    cluster.loads = [each for each in cluster.loads if each[0] is not replica]
    cluster.look(replica)


@command
def restart(player: Player, number: str, *flags: str) -> None:
    """It begins another life, perhaps damaged."""
    replica = player.replica(number)
    if replica.core is not None:
        crash(player, number)
    replica.damaged = "damaged" in flags
    player.cluster.start(replica)
    player.cluster.tell(words.of_replica(replica))


@command
def forget(player: Player, number: str, index: str) -> None:
    """The disk of one that is down is older than it was: entries behind that index are gone."""
    log = player.replica(number).log
    player.cluster.checkers.forgetful.add(int(number))
    log.durable.truncate_after(int(index))
    log.crash(0)


# ---- time


@command
def tick(player: Player, number: str) -> None:
    """Its clock goes on to when its timer rings, and that rings."""
    player.cluster.wait_for_timer(player.replica(number))
    player.cluster.tick(player.replica(number))


@command
def ring(player: Player, *numbers: str) -> None:
    """Timers that are due ring."""
    for number in numbers:
        if not player.cluster.tick(player.replica(number)):
            player.cluster.tell(f"{number} is not due")


@command
def time(player: Player, ms: str, *numbers: str) -> None:
    """Clocks go on, and no timer rings."""
    for replica in player.named(numbers):
        replica.offset_ns += int(ms) * NS_PER_MS


@command
def advance(player: Player, ms: str) -> None:
    """Time passes, timers ring, messages come at once."""
    player.quietly(lambda: player.cluster.advance(int(ms) * NS_PER_MS))


@command
def pause(player: Player, number: str) -> None:
    """Its process stands still; its clock does not."""
    player.cluster.paused.add(int(number))


@command
def resume(player: Player, number: str) -> None:
    """It goes on."""
    player.cluster.paused.discard(int(number))


# ---- messages


@command
def deliver(player: Player, *args: str) -> None:
    """Messages that fly now come, in their order."""
    copies = args[-1] == "copy"
    for message in _some(player, args[: len(args) - copies]):
        player.cluster.lines.append(words.of_message(message))
        player.cluster.come(message, stays=copies)


@command
def drop(player: Player, *args: str) -> None:
    """Messages that fly now are lost."""
    for message in _some(player, args):
        player.cluster.drop(message)


@command
def late(player: Player, *args: str) -> None:
    """Messages that fly now wait to be named."""
    player.cluster.late += _some(player, args)


@command
def hold(player: Player, *args: str) -> None:
    """Messages that fly now, and all later ones, wait to be named."""
    player.cluster.late += player.cluster.matching(_which(args))
    player.cluster.holding.append(_which(args))


@command
def release(player: Player) -> None:
    """Nothing is late any more."""
    player.cluster.late.clear()
    player.cluster.holding.clear()


@command
def messages(player: Player, *args: str) -> None:
    """What flies."""
    for message in player.cluster.matching(_which(args or ("*>*",))):
        player.cluster.tell(words.of_message(message))


@command
def cut(player: Player, *links: str) -> None:
    """A>B: what A sends to B is lost, and what flies and is not late. A|B: both ways."""
    for link in links:
        sources, arrow, targets = link.partition(">")
        if not arrow:
            sources, _, targets = link.partition("|")
        for source in sources.split(","):
            for target in targets.split(","):
                player.cluster.cut.add((int(source), int(target)))
                if not arrow:
                    player.cluster.cut.add((int(target), int(source)))
    cluster = player.cluster
    for message in list(cluster.flying):
        if (message.source, message.target) in cluster.cut and all(message is not each for each in cluster.late):
            cluster.drop(message)


@command
def heal(player: Player) -> None:
    """No link is cut."""
    player.cluster.cut.clear()


# ---- what happens by itself


@command
def run(player: Player, how: str = "") -> None:
    """Everything happens that is not late, slow or paused."""
    if how == "aloud":
        player.cluster.run()
    else:
        player.quietly(player.cluster.run)


@command
def slow(player: Player, what: str, *numbers: str) -> None:
    """Disks, machines, loads or installs of these wait to be told."""
    if what not in ("disk", "machine", "loads", "install"):
        raise Misspelt(f"{what!r} cannot be slow")
    player.cluster.slow |= {(what, int(number)) for number in numbers}


@command
def fast(player: Player, what: str, *numbers: str) -> None:
    """They do not wait any more."""
    cluster = player.cluster
    for number in numbers:
        cluster.slow.discard((what, int(number)))
        replica = player.replica(number)
        if what == "disk":
            cluster.sync_all(replica)
        elif what == "machine":
            cluster.apply(replica, ALL_ENTRIES)
        cluster.settle()


@command
def persist(player: Player, number: str, writes: str = "") -> None:
    """That many of the oldest writes, or all, are durable; the core is told."""
    cluster, replica = player.cluster, player.replica(number)
    log = replica.log
    io = 0
    for _ in range(int(writes or len(log.pending))):
        io = log.sync_one()
    core = replica.core
    assert core is not None
    if not io:
        cluster.tell("nothing is pending")
    core.persisted(cluster.now_of(replica), io)
    player.given(number)


@command
def claim(player: Player, number: str) -> None:
    """Its core is told that all is durable, which is not so."""
    replica = player.replica(number)
    player.core(number).persisted(player.cluster.now_of(replica), replica.log.pending[-1][0])
    player.given(number)


@command
def apply(player: Player, number: str, most: str = "") -> None:
    """Its state machine is given what is committed."""
    replica = player.replica(number)
    player.cluster.apply(replica, int(most or ALL_ENTRIES))
    player.cluster.settle()
    player.cluster.tell(f"{number} has applied {replica.applied}")


@command
def load(player: Player, number: str, follower: str) -> None:
    """The oldest entries that it wanted read for a follower are given to it."""
    wanted = [(each[0].id, each[1]) for each in player.cluster.loads]
    player.cluster.load_one(wanted.index((int(number), int(follower))))


@command
def install(player: Player, number: str, how: str = "") -> None:
    """The snapshot that it wants is installed; or that fails."""
    replica = player.replica(number)
    if replica.id not in player.cluster.offers:
        player.cluster.tell(f"{number} wants no snapshot")
    elif how != "fails":
        player.cluster.install_one(replica)
    else:
        del player.cluster.offers[replica.id]
        replica.installing = 0
        player.core(number).install_failed(player.cluster.now_of(replica))
        player.given(number)


@command
def compact(player: Player, number: str) -> None:
    """It makes a snapshot of what it applied, and forgets the log before that."""
    done = player.cluster.compact(player.replica(number))
    player.cluster.tell(f"{number} has {words.of_log(player.replica(number))}" if done else f"{number} cannot")
    player.cluster.look(player.replica(number))


# ---- what people ask for


@command
def campaign(player: Player, number: str) -> None:
    """Its timer rings: it misses its leader."""
    if player.core(number).role is Role.LEADER:
        raise Misspelt(f"{number} leads")
    tick(player, number)


@command
def candidate(player: Player, *numbers: str) -> None:
    """Their timers ring, and all that they reach say that they could lead: their real requests fly."""
    cluster, ones = player.cluster, [int(number) for number in numbers]
    before = list(map(id, cluster.flying))
    cluster.quiet += 1
    for number in numbers:
        tick(player, number)
    for which in [Which(one, 0, "VoteRequest") for one in ones] + [Which(0, one, "VoteAnswer") for one in ones]:
        for message in cluster.matching(which):
            if isinstance(message, (VoteRequest, VoteAnswer)) and message.pre:
                cluster.come(message)
    cluster.quiet -= 1
    for one in ones:
        cluster.tell(words.of_office(one, player.core(str(one))))
    for message in cluster.flying:
        if id(message) not in before:
            cluster.tell(words.of_message(message))


@command
def elect(player: Player, number: str) -> None:
    """Everybody misses a leader for long; that one campaigns, again if need be; everything happens."""
    core = player.core(number)
    time(player, str(player.cluster.settings.election_ms))
    if core.role is Role.LEADER:
        player.cluster.tick(player.replica(number))

    def happens() -> None:
        for _ in range(ELECTIONS_MAX):
            if core.role is not Role.LEADER:
                tick(player, number)
                player.cluster.run()

    player.quietly(happens)
    assert core.role is Role.LEADER, f"{number} was to be elected"


@command
def propose(player: Player, number: str, *payloads: str) -> None:
    """Append these; `term=N` for the leader of that term; `x*1000` is an x a thousand times."""
    core, cluster = player.core(number), player.cluster
    term = core.term
    if payloads[-1].startswith("term="):
        term = int(payloads[-1][5:])
        payloads = payloads[:-1]
    batch = []
    for payload in payloads:
        letter, _, times = payload.partition("*")
        batch.append((letter * int(times or 1)).encode())
    proposals = [Proposal(1, 0, 0, payload) for payload in batch]
    first = player.ask(number, lambda: core.propose(cluster.now_of(player.replica(number)), proposals, term))
    if first is not None:
        for index, proposal in enumerate(proposals, first):
            cluster.checkers.proposed(bytes(proposal.payload), index, term)
    player.given(number)


@command
def read(player: Player, number: str) -> None:
    """Ask for an index to read at."""
    replica, core, cluster = player.replica(number), player.core(number), player.cluster
    ticket = player.ask(number, lambda: core.read_index(cluster.now_of(replica)))
    if ticket is not None:
        cluster.trace.asked(core, ticket)
        cluster.checkers.asked_read(replica, ticket)
    player.given(number)


@command
def change(player: Player, number: str, *members: str) -> None:
    """Begin the way to these voters, and `learning` these learners."""
    core = player.core(number)
    at = members.index("learning") if "learning" in members else len(members)
    voters = {int(one): int(one) for one in members[:at]}
    learners = {int(one): int(one) for one in members[at + 1 :]}
    now_ns = player.cluster.now_of(player.replica(number))
    player.ask(number, lambda: core.change_membership(now_ns, voters, learners, core.term))
    player.given(number)


@command
def transfer(player: Player, number: str, target: str) -> None:
    """Hand over."""
    core = player.core(number)
    player.ask(number, lambda: core.transfer(player.cluster.now_of(player.replica(number)), int(target)))
    player.given(number)


# ---- what the links and the storage say


@command
def down(player: Player, number: str, *silent: str) -> None:
    """Its links say that these nodes are silent."""
    for node in silent:
        player.core(number).node_down(player.cluster.now_of(player.replica(number)), int(node))
        player.cluster.checkers.told_down(player.replica(number), int(node))
        player.given(number)


@command
def up(player: Player, number: str, *heard: str) -> None:
    """Its links say that these nodes are heard again."""
    for node in heard:
        player.core(number).node_up(player.cluster.now_of(player.replica(number)), int(node))
        player.given(number)


@command
def unreachable(player: Player, number: str, other: str) -> None:
    """What it sent to that one lately may be lost."""
    player.core(number).unreachable(player.cluster.now_of(player.replica(number)), int(other))
    player.given(number)


@command
def damage(player: Player, number: str) -> None:
    """Some of its log cannot be read."""
    player.replica(number).damaged = True
    player.core(number).found_damage(player.cluster.now_of(player.replica(number)))
    player.given(number)


@command
def fence(player: Player, number: str, *why: str) -> None:
    """It is ended, because its disk failed for example."""
    player.core(number).fence(player.cluster.now_of(player.replica(number)), " ".join(why))
    player.given(number)


# ---- looking


@command
def status(player: Player, *numbers: str) -> None:
    """What they are."""
    for replica in player.named(numbers):
        player.cluster.tell(words.of_replica(replica))


@command
def log(player: Player, *numbers: str) -> None:
    """What is in their logs."""
    for replica in player.named(numbers):
        player.cluster.tell(f"{replica.id} has {words.of_log(replica)}")


@command
def disk(player: Player, *numbers: str) -> None:
    """What is on their disks."""
    for replica in player.named(numbers):
        durable = replica.log.durable
        player.cluster.tell(
            f"{replica.id} has on disk {words.of_vote(durable.vote)}; {words.of_log(replica, durable=True)}"
        )


@command
def members(player: Player, *numbers: str) -> None:
    """Who belongs to the group, as they see it."""
    for replica in player.named(numbers):
        if replica.core is not None:
            player.cluster.tell(f"{replica.id}: {words.of_members(replica.core.membership)}")


@command
def progress(player: Player, number: str) -> None:
    """What a leader knows of its followers."""
    for each in player.core(number).progress.values():
        under_way = f", {len(each.window)} under way" * bool(each.window)
        player.cluster.tell(f"{each.replica}: {each.pace.value}, has {each.match}, next {each.next}{under_way}")


@command
def budget(player: Player, number: str) -> None:
    """What waits for a majority."""
    player.cluster.tell(f"{player.core(number).uncommitted_bytes} bytes wait for a majority")
