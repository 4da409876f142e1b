"""What came of a command is the same wherever it was asked for."""

from __future__ import annotations

import pytest

from cluster.catalogue import Catalogue
from cluster.commands import (
    AllocateProducers,
    Bootstrap,
    Command,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    encode_command,
)
from node.forwarding import _decode, _encode
from plait.wire.frames import decode_plain, encode_plain

COMMANDS: list[Command] = [
    Bootstrap("c", 1),
    RegisterNode(7, "seven", 2, 1, "host:4150"),
    CreateTopic("queue", "jobs", {"partitions": 2, "max_backlog_records": 5, "overflow": "drop-oldest"}, 3),
    CreateTopic("topic", "events", {"retention_ms": None}, 3),
    CreateTopic("topic", "jobs", {}, 3),
    AllocateProducers(7, 1, 4),
    AllocateProducers(7, 9, 4),
    DeleteTopic("jobs", 0, 5),
    DeleteTopic("jobs", 0, 6),
]


@pytest.mark.parametrize("count", range(1, len(COMMANDS) + 1))
def test_a_result_survives_its_way(count: int) -> None:
    catalogue = Catalogue()
    for index, command in enumerate(COMMANDS[:count], 1):
        result = catalogue.apply_command(index, encode_command(command))
    version, value, error = _decode(decode_plain(encode_plain(_encode(result))))
    assert (version, value) == (result.version, result.value)
    if result.error is None:
        assert error is None
    else:
        assert (type(error), str(error)) == (type(result.error), str(result.error))
