"""The broker's process: from settings to a node that serves, and back to a clean end.

    settings ──> process set-up (files, allocator, log) ──> HTTP ──> Node.open ──> gateway ──> ready file
                          signal ──> leadership is handed over ──> gateway ends ──> node ends ──> HTTP ends

The server's packages lie in plait/_server in an installed Plait and in the repository's root in a checkout;
only this process has that folder on its path.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from plait.cli import exits
from plait.doors import addresses_of, http_door, judge, native_door, peer_door
from plait.secret import cluster_secret
from plait.settings import Settings, SettingsError, http_address, parse_address, parse_nodes
from plait.wire.addresses import PORT_MAX, join_address

if TYPE_CHECKING:
    from node.health import Health
    from node.metrics import Metrics
    from node.node import Node, NodeSettings
    from replication.environment import Environment

PROFILE_VARIABLE = "PLAIT_PROFILE"
"""Names a file that gets a cProfile of the broker at its end, for the benchmark."""
MMAP_THRESHOLD_BYTES = 32 << 20
"""Buffers up to this size come from the heap: mapping and unmapping each of them costs more than using it."""
TRIM_THRESHOLD_BYTES = 64 << 20
"""Free memory at the heap's top that is kept rather than given back to the machine."""
GC_THRESHOLD_OBJECTS = 50_000
"""Net new objects between two runs of Python's cycle collector; hardly anything here makes cycles."""
BATCH_MARGIN_BYTES = 4096
"""What a batch with one record of the largest size has beside it."""
CRITICAL_SPACE_PERCENT = 37
"""Share of `min_free_bytes` below which everything but consuming and acknowledging stops."""
M_TRIM_THRESHOLD = -1
"""glibc's number of that parameter of mallopt(3)."""
M_MMAP_THRESHOLD = -3
"""glibc's number of that parameter of mallopt(3)."""


EVERYWHERE = ("0.0.0.0", "::")
"""Hosts to listen on that nobody can be sent to."""

Address = tuple[str, int]
HTTP = "http"
"""How an error says that it is about the address of the pages."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where this node listens, where it is reached, and which other nodes it looks for."""

    native: Address
    native_told: Address | None
    """What clients and other nodes are told; None: nothing that would help them."""
    peer: Address
    peer_told: Address | None
    http: Address | None
    """Where health, readiness and metrics are served; None: nowhere."""
    alone: bool
    """It neither founds a cluster with others nor joins one: it may go without what it was not told."""
    initial: Mapping[int, Address] | None
    """By the ids that they get."""
    node_id: int
    join: Sequence[Address]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the settings come to."""

    addresses: Addresses
    secret: bytes = field(repr=False)
    """The cluster's; none: nodes prove nothing to each other."""
    warnings: Sequence[str]
    """What is open and not guarded."""


def serve(settings: Settings) -> int:
    """Run a broker until it gets SIGTERM or SIGINT. Returns the process's exit code."""
    try:
        plan = planned(settings)
    except SettingsError as error:
        exits.complain(str(error))
        return exits.USAGE
    gc.disable()  # imports make many objects and no garbage
    _use_server_packages()
    _set_up_allocator()
    _raise_file_limit()
    profile = os.environ.get(PROFILE_VARIABLE, "")
    return _run_profiled(settings, plan, profile) if profile else _run(settings, plan)


def planned(settings: Settings) -> Plan:
    """All that can be found out before anything is started. Raises SettingsError."""
    addresses, secret = find_addresses(settings), cluster_secret(settings)
    doors = [native_door(addresses.native), peer_door(addresses.peer, bool(secret))]
    if addresses.http is not None:
        doors.append(http_door(addresses.http))
    return Plan(addresses, secret, judge(doors, settings.insecure, addresses_of))


def find_addresses(settings: Settings) -> Addresses:
    """What the settings say about addresses, put together. Raises SettingsError."""
    native = _parsed("native", settings.native)
    native_told = _told("advertise_native", settings.advertise_native, native)
    peer = _parsed("peer", settings.peer) if settings.peer else _beside(native)
    peer_told = _told("advertise_peer", settings.advertise_peer, peer)
    initial = _parsed_nodes("initial", settings.initial)
    join = _parsed_nodes("join", settings.join)
    if initial and join:
        raise SettingsError(
            "settings initial and join: a node founds a cluster with others, or joins one; say one"
        )
    if (initial or join) and (peer_told is None or peer_told[1] == 0):
        raise SettingsError("setting advertise_peer: say where the other nodes reach this one, as HOST:PORT")
    if initial and peer_told not in initial:
        initial, join = [], initial
    return Addresses(
        native,
        native_told,
        peer,
        peer_told,
        _http(settings.http, native),
        not initial and not join,
        dict(enumerate(initial, start=1)) if initial else None,
        initial.index(peer_told) + 1 if initial and peer_told is not None else 1,
        join,
    )


def _parsed(setting: str, text: str) -> Address:
    try:
        return parse_address(text)
    except SettingsError as error:
        raise SettingsError(f"setting {setting}: {error}") from None


def _http(text: str, native: Address) -> Address | None:
    try:
        return http_address(text, native)
    except SettingsError as error:
        raise SettingsError(f"setting http: {error}") from None


def _parsed_nodes(setting: str, text: str) -> list[Address]:
    try:
        return parse_nodes(text) if text else []
    except SettingsError as error:
        raise SettingsError(f"setting {setting}: {error}") from None


def _told(setting: str, text: str, listen: Address) -> Address | None:
    if text:
        host, port = _parsed(setting, text)
        if host in EVERYWHERE or port == 0:
            raise SettingsError(f"setting {setting}: nobody can connect to {text}: say where this node is reached")
        return host, port
    return None if listen[0] in EVERYWHERE else listen


def _beside(native: Address) -> Address:
    """The address for other nodes, when none is named."""
    host, port = native
    return host, port + 1 if 0 < port < PORT_MAX else 0


def _run(settings: Settings, plan: Plan) -> int:
    # structlog takes rich along for coloured tracebacks when it is there: 45 ms of the start, never used here
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None is how a module is barred
    import structlog
    import trio

    from plait.cli import logs
    from plait.wire.errors import PlaitError
    from replication.storage.damage import StorageFailed, StorageLocked

    expected = (OSError, PlaitError, StorageFailed, StorageLocked)
    logs.set_up(settings.log.format, settings.log.level)
    for warning in plan.warnings:
        structlog.get_logger("plait.serve").warning("not guarded", why=warning)
    try:
        trio.run(_serve, settings, plan)
    except KeyboardInterrupt:  # before the loop ran
        return exits.INTERRUPTED
    except (*expected, BaseExceptionGroup) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return exits.INTERRUPTED
        if not all(isinstance(cause, expected) for cause in causes):
            raise
        exits.complain(_explained(causes[0], settings))
        return exits.FAILED
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is done: it must not turn a clean end into another
    return exits.DONE


async def _serve(settings: Settings, plan: Plan) -> None:
    import trio

    from gateways.native import figures
    from gateways.native.limits import GatewayLimits
    from gateways.native.server import NativeGateway
    from node.health import STOPPING, Health
    from node.metrics import Metrics
    from plait.cli import logs
    from replication.real import real_environment

    health = Health()
    _withdraw_ready_file(settings)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            environment = real_environment(settings.data, nursery)
            metrics = Metrics(environment, health)
            http = await _open_http(environment, settings, plan.addresses, metrics)
            node = await _open(environment, _node_settings(settings, plan), health, signals)
            if node is None:
                nursery.cancel_scope.cancel()
                return
            logs.set_node(node.node_id)
            limits = GatewayLimits(connections_max=settings.connections_max)
            gateway = NativeGateway(environment, node.broker, *plan.addresses.native, limits)
            native = join_address(*await gateway.start())
            nursery.start_soon(gateway.run, name="native gateway")
            metrics.node = node
            metrics.sources.append(partial(figures.put, counters=gateway.counters))
            _settle_down()
            _announce(settings, node, native, http)
            await _unless_asked_to_end(signals, node.removed.wait)
            health.stage = STOPPING
            nursery.start_soon(_end_at_once_when_asked_again, signals)
            _withdraw_ready_file(settings)
            await node.hand_over()
            await gateway.stop()
            await node.close()
            nursery.cancel_scope.cancel()


async def _open_http(environment: Environment, settings: Settings, addresses: Addresses, metrics: Metrics) -> str:
    """Serve the pages from now on; their address, "" for nowhere. Raises OSError.

    A broker that runs alone and was not told where goes without them where the place is taken.
    """
    import structlog

    address = addresses.http
    if address is None:
        return ""
    from gateways.http.pages import Pages
    from gateways.http.server import HttpGateway

    gateway = HttpGateway(environment, Pages(metrics.health, metrics.scrape), *address)
    try:
        listening = await gateway.start()
    except OSError as error:
        where = join_address(*address)
        if settings.http or not addresses.alone:
            raise OSError(error.errno, error.strerror, HTTP, None, where) from error
        _logger = structlog.get_logger("plait.serve")
        _logger.warning(
            "no health, readiness or metrics pages", address=where, why=error.strerror, setting="--http"
        )
        return ""
    environment.tasks.spawn("http gateway", gateway.run)
    return join_address(*listening)


async def _open(
    environment: Environment, settings: NodeSettings, health: Health, signals: AsyncIterator[int]
) -> Node | None:
    """The node, when it serves: one of a cluster may wait for the others. None: it was told to end before."""
    from node.node import Node

    node: Node | None = None

    async def open_it() -> None:
        nonlocal node
        node = await Node.open(environment, settings, health)

    await _unless_asked_to_end(signals, open_it)
    return node


async def _unless_asked_to_end(signals: AsyncIterator[int], work: Callable[[], Awaitable[None]]) -> None:
    """Do it; it is cancelled when somebody asks the node to end."""
    import trio

    async def end_when_asked() -> None:
        await anext(signals)
        working.cancel_scope.cancel()

    async with trio.open_nursery() as working:
        working.start_soon(end_when_asked)
        await work()
        working.cancel_scope.cancel()


async def _end_at_once_when_asked_again(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        if number == signal.SIGINT:
            raise KeyboardInterrupt


def _node_settings(settings: Settings, plan: Plan) -> NodeSettings:
    from node.controller import ControllerSettings
    from node.node import NodeSettings
    from plait.wire.batch import MAX_BATCH_BYTES, BatchLimits
    from replication.storage.settings import StorageSettings

    addresses = plan.addresses
    record_bytes = settings.max_record_bytes
    low = settings.storage.min_free_bytes
    return NodeSettings(
        limits=BatchLimits(record_bytes, max(MAX_BATCH_BYTES, record_bytes + BATCH_MARGIN_BYTES)),
        storage=StorageSettings(
            wal_file_bytes=settings.storage.wal_file_bytes,
            low_space_bytes=low,
            critical_space_bytes=low * CRITICAL_SPACE_PERCENT // 100,
        ),
        name=settings.name,
        node_id=addresses.node_id,
        initial=addresses.initial,
        join=addresses.join,
        peer_listen=addresses.peer,
        peer_optional=addresses.alone and not settings.peer,
        peer=addresses.peer_told if addresses.peer_told is not None and addresses.peer_told[1] else None,
        native=addresses.native_told if addresses.native_told is not None and addresses.native_told[1] else None,
        rack=settings.rack,
        secret=plan.secret,
        controller=ControllerSettings(dead_after_ms=settings.dead_after_s * 1_000),
    )


def _announce(settings: Settings, node: Node, native: str, http: str) -> None:
    """Tell whoever waits for it that clients are welcome: the ready file, and a few lines for people."""
    import msgspec

    from plait.version import __version__

    data = os.path.abspath(settings.data)
    cluster_id, node_id = node.broker.cluster_id, node.broker.node_id
    if settings.ready_file:
        facts = {
            "pid": os.getpid(),
            "native": native,
            "http": http,
            "cluster_id": cluster_id,
            "node_id": node_id,
            "data": data,
        }
        draft = f"{settings.ready_file}.{os.getpid()}.tmp"
        with open(draft, "wb") as file:
            file.write(msgspec.json.encode(facts))
        os.replace(draft, settings.ready_file)  # readers see all of it or nothing
    if settings.log.format == "console":
        print(
            f"Plait {__version__} is ready: node {node_id} of cluster {cluster_id}\n"
            f"  native  {native}\n  http    {http or 'none'}\n  data    {data}\nStop it with Ctrl-C.",
            file=sys.stderr,
            flush=True,
        )


def _withdraw_ready_file(settings: Settings) -> None:
    if settings.ready_file:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(settings.ready_file)


def _settle_down() -> None:
    """What was made until now stays until the end: the cycle collector need not look at it again."""
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 20, 100)
    gc.enable()


def _use_server_packages() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    packed = os.path.join(here, "_server")
    sys.path.insert(0, packed if os.path.isdir(packed) else os.path.dirname(here))


def _set_up_allocator() -> None:
    """Keep buffers of 128 KiB and more on the heap (glibc maps each anew: 34 times slower at 256 KiB)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library: it has its own ways
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def _raise_file_limit() -> None:
    """As many open files (connections, segments) as the machine allows without asking anyone."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run_profiled(settings: Settings, plan: Plan, file: str) -> int:
    import cProfile

    profile = cProfile.Profile()
    try:
        return profile.runcall(_run, settings, plan)
    finally:
        profile.dump_stats(file)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What really went wrong, out of the groups in which trio hands it up."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


def _explained(error: BaseException, settings: Settings) -> str:
    """One line: what happened, and what to do."""
    if not isinstance(error, OSError):
        return f"{os.path.abspath(settings.data)}: {error}"
    where, flag = settings.native, "--native"
    if error.filename2:
        where, flag = error.filename2, "--http" if error.filename == HTTP else "--peer"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use by another program; choose another address with {flag}"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EACCES) and (error.filename2 or not error.filename):
        return f"cannot listen on {where}: {error.strerror}; choose another address with {flag}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return f"cannot use {error.filename or settings.data}: {error.strerror}; choose a folder with --data"
    return f"stopped by the machine: {error}"
