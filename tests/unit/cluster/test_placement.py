"""Placement: how many replicas, and on which nodes."""

from __future__ import annotations

import pytest

from cluster.placement import METADATA_VOTERS_MAX, Site, metadata_voters, pick, place, shape


@pytest.mark.parametrize(
    ("wanted", "nodes", "expected"),
    [
        (None, 0, (1, 0)),
        (None, 1, (1, 0)),
        (None, 2, (1, 1)),
        (None, 3, (3, 0)),
        (None, 9, (3, 0)),
        (1, 5, (1, 0)),
        (2, 1, (1, 0)),
        (2, 2, (2, 0)),
        (3, 2, (1, 1)),
        (4, 3, (3, 0)),
        (5, 4, (3, 1)),
        (5, 5, (5, 0)),
    ],
)
def test_how_many_replicas_vote_and_learn(wanted, nodes, expected):
    assert shape(wanted, nodes) == expected


def test_the_catalogue_has_one_voter_then_three_then_five():
    assert [metadata_voters(nodes) for nodes in range(1, 8)] == [1, 1, 3, 3, 5, 5, 5]
    assert METADATA_VOTERS_MAX == 5


def test_the_least_loaded_nodes_are_chosen_and_leaders_are_even():
    sites = [Site(node, "", 0, 0) for node in (1, 2, 3, 4)]
    chosen = [place(None, sites) for _ in range(8)]
    assert {site.replicas for site in sites} == {6}
    assert {site.preferred for site in sites} == {2}
    assert all(len({each.node for each in places}) == 3 for places in chosen)
    assert all(each.votes for places in chosen for each in places)


def test_racks_are_spread_over_first():
    sites = [Site(1, "a", 0, 0), Site(2, "a", 0, 0), Site(3, "a", 0, 0), Site(4, "b", 50, 0), Site(5, "c", 50, 0)]
    assert {each.node for each in place(3, sites)} == {1, 4, 5}
    assert [site.node for site in pick(1, sites[:4], [sites[0]])] == [4]


def test_nodes_without_a_rack_crowd_nobody():
    sites = [Site(1, "", 0, 0), Site(2, "", 1, 0), Site(3, "b", 2, 0)]
    assert [site.node for site in pick(2, sites, [])] == [1, 2]


def test_with_fewer_nodes_there_are_fewer_replicas():
    assert place(5, [Site(1, "", 0, 0)]) == [(1, True)]
    assert place(None, [Site(1, "", 0, 0), Site(2, "", 0, 0)]) == [(1, True), (2, False)]
