"""Every Python example of the documentation runs, as it stands there, against a real broker."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType
from typing import Any

import anyio
import pytest

from plait.pytest_plugin import PlaitBroker

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLE_LIMIT_S = 60.0
"""An example that hangs is an example that does not work."""


def examples() -> list[Any]:
    """Every block, named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("source", examples())
def test_example_runs(source: str, plait_broker: PlaitBroker, tmp_path: Path) -> None:
    if re.search(r"^(async )?def test_", source, re.MULTILINE):
        run_as_tests(source, tmp_path)
    else:
        run_as_program(source, plait_broker)


def run_as_program(source: str, broker: PlaitBroker) -> None:
    """Run a block in the broker's place; it may await at its top level, or define main()."""
    source = source.replace('"127.0.0.1:4150"', f'"{broker.address}", namespace="{broker.namespace}"')
    code = compile(source, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"__name__": "example"}
    if code.co_flags & inspect.CO_COROUTINE:
        run_async(FunctionType(code, names))
    else:
        exec(code, names)
    if "main" in names:
        run_async(names["main"])


def run_async(main: Callable[[], Awaitable[Any]]) -> None:
    """Within the limit, on trio."""

    async def limited() -> None:
        with anyio.fail_after(EXAMPLE_LIMIT_S):
            await main()

    anyio.run(limited, backend="trio")


def run_as_tests(source: str, folder: Path) -> None:
    """Run a block as a test module of a project that has nothing but Plait installed."""
    (folder / "test_example.py").write_text(source, encoding="utf-8")
    installed = any(entry.value == "plait.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "plait.pytest_plugin"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * EXAMPLE_LIMIT_S,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
