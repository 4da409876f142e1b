"""What the nodes of a cluster must know of each other's versions.

A cluster is upgraded node by node. A command that older nodes cannot read would stop their replicas of the
catalogue (nothing is skipped), so it is used only when all nodes have said that they know it.
"""

from __future__ import annotations

FEATURES = 2
"""What this version knows; one more with every kind of command, or field of one, that is added.

1: nodes that join, placement, and moves.
2: consumer groups.
"""
GROUPS_FEATURE = 2
"""From which on nodes know consumer groups."""
