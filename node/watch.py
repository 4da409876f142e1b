"""What a node looks at all the time: its disk and memory for admission's sake, and whether its loop keeps up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog

from cluster.limits import NodePressure, Storage
from cluster.rates import NS_PER_MS
from node.standings import Standings
from replication.environment import Environment
from replication.storage.store import Store

WATCH_INTERVAL_MS = 100
"""How often the node looks."""
MEMORY_PERCENT = 60
"""Share of the machine's memory that the node may use before it refuses publishes, unless it is told a size."""
STALL_MS = 500
"""A look that comes so late is a stall of the loop, and is logged: everybody waited as long."""
REFUSALS_MS = 10_000
"""Shortest time between two lines about publishes that were refused."""
LAG_LOOKS_MAX = 100
"""Latest looks of which the worst delay is told."""

_logger = structlog.get_logger("plait.node")


class Watch:
    """One per node; `run` until cancelled."""

    def __init__(
        self,
        environment: Environment,
        store: Store,
        pressure: NodePressure,
        standings: Standings,
        memory_bytes_max: int | None,
        on_storage: Callable[[int, Storage], None] = lambda now_ns, storage: None,
    ) -> None:
        """`memory_bytes_max`: None: MEMORY_PERCENT of the machine's. `on_storage`: called with each look at the
        disk, before admission goes by it."""
        self._environment = environment
        self._store = store
        self._pressure = pressure
        self._standings = standings
        self._memory_bytes_max = memory_bytes_max
        self._on_storage = on_storage
        self._late_ms: deque[int] = deque(maxlen=LAG_LOOKS_MAX)
        self._refused: dict[str, int] = {}  # by reason, as the log was told
        self._refused_ns = 0
        self.stalls = 0
        """Looks that came STALL_MS late or later."""

    @property
    def lag_ms(self) -> int:
        """How late the worst of the latest looks came: what anybody may have had to wait for the loop."""
        return max(self._late_ms, default=0)

    async def run(self) -> None:
        """Look, for ever."""
        clock = self._environment.clock
        while True:
            self._look()
            due_ns = clock.monotonic_ns() + WATCH_INTERVAL_MS * NS_PER_MS
            await clock.sleep_until(due_ns)
            self._woke((clock.monotonic_ns() - due_ns) // NS_PER_MS)

    def _look(self) -> None:
        memory, pressure = self._environment.memory(), self._pressure
        most = self._memory_bytes_max or memory.machine_bytes * MEMORY_PERCENT // 100
        pressure.memory_percent = memory.used_bytes * 100 // most if most else 0
        storage, now_ns = self._store.pressure, self._environment.clock.monotonic_ns()
        self._on_storage(now_ns, storage)
        if storage != pressure.storage:
            self._storage_changed(pressure.storage, storage)
            pressure.storage = storage
        self._standings.report(now_ns)
        self._report_refusals(now_ns)

    def _report_refusals(self, now_ns: int) -> None:
        """One line about all publishes that admission refused lately, with how many for which reason."""
        refused = self._pressure.refused
        if refused == self._refused or now_ns - self._refused_ns < REFUSALS_MS * NS_PER_MS:
            return
        news = {reason: count - self._refused.get(reason, 0) for reason, count in refused.items()}
        self._refused, self._refused_ns = dict(refused), now_ns
        _logger.warning("publishes refused", **{reason: count for reason, count in news.items() if count})

    def _storage_changed(self, before: str, now: str) -> None:
        """Space that runs out is worth a line; a flush that falls behind comes and goes."""
        if now in ("low", "critical"):
            _logger.warning("disk space is short, this node takes no more publishes", pressure=now, was=before)
        elif before in ("low", "critical"):
            _logger.info("there is disk space again", pressure=now, was=before)

    def _woke(self, late_ms: int) -> None:
        self._late_ms.append(late_ms)
        if late_ms >= STALL_MS:
            self.stalls += 1
            _logger.warning("loop stalled", ms=late_ms, stalls=self.stalls)
