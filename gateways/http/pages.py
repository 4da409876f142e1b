"""The pages: which there are, and what each of them says.

/healthz   the process lives, and its log is not failed     200 | 503 with reasons
/readyz    this node can serve                              200 | 503 with reasons
/metrics   figures for Prometheus
/          where these are
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateways.http.answers import Answer, json_answer
from node.health import Health
from plait.version import __version__

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text exposition format."""
METHODS = ("GET", "HEAD")
"""What can be done with a page."""

Scrape = Callable[[], Awaitable[bytes]]


class Pages:
    """Answers requests. Asked at any time, also while the node is starting or ending."""

    def __init__(self, health: Health, scrape: Scrape) -> None:
        self._health = health
        self._scrape = scrape
        self._pages: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/": self._index,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }

    async def answer(self, method: str, path: str) -> Answer:
        """The page, or what is said instead."""
        page = self._pages.get(path)
        if page is None:
            return json_answer(404, {"error": f"there is no page {path}", "pages": list(self._pages)})
        if method not in METHODS:
            allowed = ", ".join(METHODS)
            return json_answer(405, {"error": f"{method} is not served here: use {allowed}"}, {"Allow": allowed})
        return await page()

    async def _index(self) -> Answer:
        pages = [path for path in self._pages if path != "/"]
        return json_answer(
            200, {"broker": "plait", "version": __version__, **self._health.facts(), "pages": pages}
        )

    async def _healthz(self) -> Answer:
        return self._verdict("healthy", self._health.ailments())

    async def _readyz(self) -> Answer:
        return self._verdict("ready", self._health.hindrances())

    async def _metrics(self) -> Answer:
        return Answer(200, METRICS_TYPE, await self._scrape())

    def _verdict(self, what: str, reasons: list[str]) -> Answer:
        facts: dict[str, Any] = {what: not reasons, "reasons": reasons, **self._health.facts()}
        return json_answer(503 if reasons else 200, facts)
