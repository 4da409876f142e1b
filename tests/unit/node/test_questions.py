"""Questions to another node's replicas are what they were when they arrive."""

from __future__ import annotations

import pytest

from node.entries import Command
from node.questions import SettleLeases


@pytest.mark.parametrize(
    "command",
    [
        [Command.ACK, "", [(7, 0, 9)]],
        [Command.RETURN, "billing", [(7, 0, 9), (8, 10, 10)], 250],
        [Command.EXTEND, "", [(7, 0, 9)], 30_000],
    ],
)
def test_what_became_of_leases_travels(command: list[object]) -> None:
    question = SettleLeases(command)
    payload = b"".join(bytes(part) for part in question.payload())
    read = SettleLeases.read(question.words(), memoryview(payload))
    kind, subscription, items, *rest = command
    assert isinstance(items, list)
    assert read.command == [kind, subscription, [list(item) for item in items], *rest]
