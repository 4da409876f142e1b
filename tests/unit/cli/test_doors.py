"""Where a broker listens, off loopback, and what clients are told: decided before anything listens."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from plait.cli import exits
from plait.cli.main import main
from plait.doors import addresses_of, http_door, is_loopback, judge, native_door, peer_door
from plait.serve import planned
from plait.settings import SettingsError, load

NAMES = {
    "here": ["127.0.0.1", "::1"],
    "also-here": ["127.0.0.53"],
    "both": ["127.0.0.1", "10.0.0.1"],
    "there": ["10.0.0.1"],
    "127.1": ["127.0.0.1"],
    "0": ["0.0.0.0"],
    "link": ["fe80::1%eth0"],
    "empty": [],
}


def resolve(name: str) -> Iterable[str]:
    if name not in NAMES:
        raise OSError("no such name")
    return NAMES[name]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1", "localhost"),
        *("here", "also-here", "127.1"),
    ],
)
def test_on_loopback(host: str) -> None:
    assert is_loopback(host, resolve)


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::2", "fe80::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
        *("::ffff:0.0.0.0", "both", "there", "0", "link", "empty", "unknown", ""),
    ],
)
def test_off_loopback(host: str) -> None:
    assert not is_loopback(host, resolve)


def test_this_machine_knows_its_own_name_for_loopback() -> None:
    assert "127.0.0.1" in set(addresses_of("127.0.0.1"))
    with pytest.raises(OSError):  # noqa: PT011 - which one is the machine's
        list(addresses_of("no.such.name.invalid"))


def test_whatever_is_on_loopback_is_open() -> None:
    doors = [native_door(("127.0.0.1", 4150)), peer_door(("::1", 4151), False)]
    assert judge(doors, False, resolve) == []
    assert judge(doors, True, resolve) == []


def test_clients_off_loopback_need_a_word_of_consent() -> None:
    door = native_door(("0.0.0.0", 4150))
    with pytest.raises(SettingsError) as found:
        judge([door], False, resolve)
    assert str(found.value) == (
        "setting native: 0.0.0.0:4150 can be reached from other machines, and would be open to clients that say "
        "nothing about who they are; nothing was started: listen on loopback (127.0.0.1), or say --insecure if "
        "nobody else reaches it"
    )
    assert judge([door], True, resolve) == [
        "0.0.0.0:4150 is open to clients that say nothing about who they are: "
        "everyone who reaches it may do anything"
    ]


def test_nodes_off_loopback_need_a_secret_or_a_word_of_consent() -> None:
    open_door = peer_door(("::", 4151), False)
    with pytest.raises(SettingsError) as found:
        judge([open_door], False, resolve)
    assert str(found.value) == (
        "setting peer: [::]:4151 can be reached from other machines, and would be open to whoever claims to be a "
        "node of the cluster; nothing was started: give all nodes the same --cluster-secret-file, listen on "
        "loopback (127.0.0.1), or say --insecure if nobody else reaches it"
    )
    assert judge([open_door], True, resolve)[0].startswith("[::]:4151 is open to whoever claims")
    assert judge([peer_door(("::", 4151), True)], False, resolve) == []


def test_pages_off_loopback_need_a_word_of_consent() -> None:
    with pytest.raises(SettingsError, match="setting http: there:4152 can be reached from other machines"):
        judge([http_door(("there", 4152))], False, resolve)
    assert judge([http_door(("there", 4152))], True, resolve) == [
        "there:4152 is open to whoever wants to read its health and figures: everyone who reaches it may read them"
    ]


def test_consent_for_clients_does_not_take_the_secret_away() -> None:
    doors = [native_door(("there", 4150)), peer_door(("there", 4151), True)]
    assert len(judge(doors, True, resolve)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--native", "0.0.0.0:0"], "say --insecure"),
        (["--native", "[::]:0"], "say --insecure"),
        (["--peer", "0.0.0.0:4161"], "give all nodes the same --cluster-secret-file"),
        (["--peer", "[::]:4161"], "setting peer: [::]:4161 can be reached"),
        (["--insecure", "--advertise-native", "0.0.0.0:1"], "nobody can connect to 0.0.0.0:1"),
        (["--advertise-native", "here"], "setting advertise_native: 'here' is not an address"),
        (["--advertise-native", "here:0"], "nobody can connect to here:0"),
        (["--advertise-peer", "[::]:4151"], "setting advertise_peer: nobody can connect to [::]:4151"),
    ],
)
def test_a_broker_is_not_started(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == exits.USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--native", "127.0.0.1:4150"], ("127.0.0.1", 4150)),
        (["--native", "0.0.0.0:4150", "--insecure"], None),
        (["--native", "0.0.0.0:4150", "--insecure", "--advertise-native", "n1.example:9"], ("n1.example", 9)),
        (["--native", "127.0.0.1:0", "--advertise-native", "n1.example:9"], ("n1.example", 9)),
    ],
)
def test_clients_are_told(arguments: list[str], told: tuple[str, int] | None) -> None:
    assert planned(load(arguments, {})).addresses.native_told == told


@pytest.mark.parametrize(
    ("arguments", "variables", "insecure"),
    [
        ([], {}, False),
        (["--insecure"], {}, True),
        (["--insecure", "--native", "127.0.0.1:1"], {}, True),
        (["--insecure=false"], {"PLAIT_INSECURE": "true"}, False),
        ([], {"PLAIT_INSECURE": "1"}, True),
        ([], {"PLAIT_INSECURE": "false"}, False),
    ],
)
def test_consent_is_a_switch(arguments: list[str], variables: dict[str, str], insecure: bool) -> None:
    assert load(arguments, variables).insecure is insecure


def test_consent_is_written_in_the_log_at_every_start() -> None:
    secret = ["--cluster-secret", "sixteen characters", "--peer", "0.0.0.0:4161", "--http", "off"]
    assert planned(load(secret, {})).warnings == []
    plan = planned(load(["--native", "0.0.0.0:4150", "--insecure", *secret], {}))
    assert len(plan.warnings) == 1
    assert "0.0.0.0:4150 is open to clients" in plan.warnings[0]
    assert len(planned(load(["--native", "0.0.0.0:4150", "--insecure"], {})).warnings) == 3
