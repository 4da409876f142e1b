"""Where a quick test looks first: the first seed that showed each mutant, when scripts/mutants was last run."""

from __future__ import annotations

from collections.abc import Mapping

FIRST_SEEDS: Mapping[str, int] = {}
"""By name; 0 where a name is not here."""
