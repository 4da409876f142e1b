"""Whole nodes in one seeded loop: plans of faults, the worlds they happen in, and the checks that judge them."""
