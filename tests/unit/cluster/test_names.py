"""Which names may be had."""

from __future__ import annotations

import pytest

from cluster import names
from plait.wire.errors import NameInvalid

CHECKS = [names.check_topic_name, names.check_queue_name, names.check_subscription_name]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ["a", "orders", "Orders-2.eu_west", "...", ".a", "plait", "plaits.x", "x" * 200])
def test_ordinary_names_are_taken_as_they_are(check, name):
    assert check(name) == name


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a b", "a/b", "a\n", "é", "\u0665", "a\x00", "plait.x", "plait.", "x" * 201, None, 5, b"a"],
)
def test_other_names_are_refused(check, name):
    with pytest.raises(NameInvalid):
        check(name)


@pytest.mark.parametrize("namespace", ["", "a", "test_1-b", "plaits", "x" * 40])
def test_ordinary_namespaces_are_taken(namespace):
    assert names.check_namespace(namespace) == namespace


@pytest.mark.parametrize("namespace", ["a.b", "a b", "x" * 41, "plait", "..", None])
def test_other_namespaces_are_refused(namespace):
    with pytest.raises(NameInvalid):
        names.check_namespace(namespace)


def test_a_namespace_goes_in_front_and_comes_off_again():
    full = names.qualified("team", "orders")
    assert full == "team.orders"
    assert names.unqualified("team", full) == "orders"
    assert names.unqualified("tea", full) is None
    assert names.unqualified("", full) == full
    assert names.qualified("", "orders") == "orders"


def test_the_message_names_the_limit():
    with pytest.raises(NameInvalid, match=r"201 characters.*at most 200"):
        names.check_topic_name("x" * 201)
