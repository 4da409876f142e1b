"""How long there was no service is measured by the worst partition, from the fault until everything is served."""

from __future__ import annotations

from tests.chaos.outages import Outages


def test_an_outage_is_the_longest_time_between_two_successes_in_the_worst_partition() -> None:
    outages = Outages()
    outages.begin(["a", "b"], 0.0)
    for at_s in (1.0, 2.0):
        outages.succeeded("a", at_s)
        outages.succeeded("b", at_s)
    fault = outages.struck("kill", 2.5)
    outages.succeeded("a", 2.6)
    outages.succeeded("b", 6.0)
    outages.succeeded("a", 6.1)
    assert outages.over(fault, 6.2) == 3.5
    assert outages.rows() == [("kill", 1, 3.5, 3.5)]


def test_a_partition_that_was_never_served_counts_until_the_end() -> None:
    outages = Outages()
    outages.begin(["a", "b"], 0.0)
    fault = outages.struck("cut", 1.0)
    outages.succeeded("a", 1.1)
    assert not outages.served_since(1.0)
    assert outages.unserved(1.0) == ["b"]
    assert outages.over(fault, 9.0) == 8.0


def test_faults_of_one_kind_are_told_together() -> None:
    outages = Outages()
    outages.begin(["a"], 0.0)
    for length_s in (1.0, 5.0, 2.0):
        fault = outages.struck("kill", 0.0)
        outages.succeeded("a", length_s)
        outages.over(fault, length_s)
    assert outages.rows() == [("kill", 3, 2.0, 5.0)]


def test_a_new_round_has_other_partitions() -> None:
    outages = Outages()
    outages.begin(["a"], 0.0)
    outages.begin(["b"], 10.0)
    fault = outages.struck("kill", 11.0)
    outages.succeeded("a", 12.0)
    outages.succeeded("b", 13.0)
    assert outages.served_since(12.5)
    assert outages.over(fault, 13.0) == 2.0
