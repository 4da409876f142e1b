"""Every metric of the broker is in docs/metrics.md as it is: the tables are made from the code.

Run as a module, it writes the page anew (scripts/metrics).
"""

from __future__ import annotations

from importlib import import_module

from node.exposition import PREFIX, Metric
from tests.tidy import repository

PAGE = "docs/metrics.md"
BEGIN = "<!-- metrics: made by scripts/metrics -->"
END = "<!-- end of metrics -->"


def all_metrics() -> list[Metric]:
    """Those of the node and of every gateway, by name."""
    gateways = sorted({name.split("/")[1] for name in repository.python_files("gateways") if name.count("/") > 1})
    modules = ["node.figures"]
    for gateway in gateways:
        if f"gateways/{gateway}/figures.py" in repository.python_files("gateways"):
            modules.append(f"gateways.{gateway}.figures")
    found = [
        value for module in modules for value in vars(import_module(module)).values() if isinstance(value, Metric)
    ]
    assert len({metric.name for metric in found}) == len(found), "a metric's name is given once"
    return sorted(found, key=lambda metric: metric.name)


def row(metric: Metric) -> str:
    """Its row in the table."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def updated(page: str) -> str:
    """The page with a table of all metrics in its place."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    head = ["| metric | kind | labels | what it says |", "| --- | --- | --- | --- |"]
    return "\n".join([before.rstrip(), "", BEGIN, *head, *map(row, all_metrics()), END]) + (after or "\n")


def main() -> None:
    """Write the page."""
    page = repository.ROOT / PAGE
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
