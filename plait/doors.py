"""Doors: the addresses at which a broker listens, and which of them may be open to other machines.

    on loopback                        open
    off loopback, guarded              open        whoever comes must prove something first
    off loopback, not guarded          refused at the start, or open with a warning when told --insecure

Pure, but for the look-up of names, which is handed in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from plait.settings import SettingsError

Address = tuple[str, int]
Resolve = Callable[[str], Iterable[str]]
"""All IP addresses of a name; raises OSError where nobody knows it."""


@dataclass(frozen=True, slots=True)
class Door:
    """One address to listen on."""

    setting: str
    address: Address
    guarded: bool
    open_to: str
    """Who comes in where it is not guarded."""
    guard: str = ""
    """What would guard it, as something to do; empty: nothing does yet."""
    act: str = "do anything"
    """What they can do there."""


def native_door(address: Address) -> Door:
    """The clients': nobody has to say who they are yet."""
    return Door("native", address, False, "clients that say nothing about who they are")


def http_door(address: Address) -> Door:
    """Those who look after it: nothing can be changed there."""
    return Door("http", address, False, "whoever wants to read its health and figures", act="read them")


def peer_door(address: Address, has_secret: bool) -> Door:
    """The other nodes'."""
    what_to_do = "give all nodes the same --cluster-secret-file"
    return Door("peer", address, has_secret, "whoever claims to be a node of the cluster", what_to_do)


def judge(doors: Iterable[Door], insecure: bool, resolve: Resolve) -> list[str]:
    """What to warn of at the start. Raises SettingsError for the first door that must not be open."""
    warnings = []
    for door in doors:
        if door.guarded or is_loopback(door.address[0], resolve):
            continue
        host, port = door.address
        where = f"{f'[{host}]' if ':' in host else host}:{port}"
        if insecure:
            warnings.append(f"{where} is open to {door.open_to}: everyone who reaches it may {door.act}")
            continue
        ways_out = [door.guard, "listen on loopback (127.0.0.1)", "or say --insecure if nobody else reaches it"]
        raise SettingsError(
            f"setting {door.setting}: {where} can be reached from other machines, and would be open to "
            f"{door.open_to}; nothing was started: {', '.join(filter(None, ways_out))}"
        )
    return warnings


def is_loopback(host: str, resolve: Resolve) -> bool:
    """Whether only this machine reaches it: 127.0.0.0/8, ::1, localhost, and names that stand for such only."""
    if host == "localhost":
        return True
    if (numeric := _numeric(host)) is not None:
        return _only_this_machine(numeric)
    try:
        found = [_numeric(address) for address in resolve(host)]
    except OSError:  # it may mean anything by the time that it is listened on
        return False
    return bool(found) and all(address is not None and _only_this_machine(address) for address in found)


def addresses_of(name: str) -> Iterator[str]:
    """What this machine makes of a name. Raises OSError."""
    import socket  # only for those who listen on names

    for *_, address in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
        yield str(address[0])


def _numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _only_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
