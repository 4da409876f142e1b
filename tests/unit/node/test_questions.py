"""What one node asks another is read there as it was meant."""

from __future__ import annotations

from node.entries import Command
from node.questions import SettleLeases


def test_what_becomes_of_leases_is_told_to_a_leader_elsewhere() -> None:
    asked = SettleLeases([Command.RETURN, "billing", [(7, 0, 4), (8, 5, 5)], 100])
    (payload,) = asked.payload()
    read = SettleLeases.read(asked.words(), memoryview(payload))
    assert read.command == [Command.RETURN, "billing", [[7, 0, 4], [8, 5, 5]], 100]
