"""What all tests share: how Hypothesis judges speed. It does not: no test here is timed, machines differ."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("plait", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plait")
