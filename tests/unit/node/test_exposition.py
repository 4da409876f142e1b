"""Prometheus' text format, read back by Prometheus' own client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from node.exposition import Metric, Page

COUNTER = Metric("things_total", "counter", "Things\nwith a \\ in it.", ("kind", "name"))
GAUGE = Metric("level_bytes", "gauge", "A level.")


def read(page: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values) to value."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_a_page_is_read_back() -> None:
    page = Page()
    page.put(GAUGE, 0.25)
    page.put(COUNTER, 3, "a", "b")
    page.put(COUNTER, 2**60, "a", "c")
    assert page.encode() == (
        b"# HELP plait_level_bytes A level.\n"
        b"# TYPE plait_level_bytes gauge\n"
        b"plait_level_bytes 0.25\n"
        b"# HELP plait_things_total Things\\nwith a \\\\ in it.\n"
        b"# TYPE plait_things_total counter\n"
        b'plait_things_total{kind="a",name="b"} 3\n'
        b'plait_things_total{kind="a",name="c"} 1152921504606846976\n'
    )
    assert read(page.encode()) == {
        ("plait_level_bytes", ()): 0.25,
        ("plait_things_total", ("a", "b")): 3,
        ("plait_things_total", ("a", "c")): 2**60,
    }


def test_an_empty_page_is_empty() -> None:
    assert Page().encode() == b""


@given(st.text().filter(lambda text: "\r" not in text), st.text(max_size=3), st.floats(allow_nan=False))
def test_any_label_and_any_value(kind: str, name: str, value: float) -> None:
    name = name.replace("\r", "")
    page = Page()
    page.put(COUNTER, value, kind, name)
    lines = [line for line in page.encode().decode().split("\n") if line and not line.startswith("#")]
    assert len(lines) == 1
    families = list(text_string_to_metric_families(lines[0] + "\n"))
    sample = families[0].samples[0]
    assert (sample.labels, sample.value) == ({"kind": kind, "name": name}, value)


@pytest.mark.parametrize(("name", "kind"), [("things", "counter"), ("things_total", "gauge")])
def test_names_say_what_they_are(name: str, kind: str) -> None:
    with pytest.raises(AssertionError):
        Metric(name, kind, "x")  # type: ignore[arg-type]  # a word of two
