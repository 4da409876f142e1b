"""What the tidy tests look at: the files of this repository, as git knows them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SERVER_PACKAGES = ("replication", "cluster", "node", "gateways")
"""Packages whose code sees the world through replication/environment.py only."""
PACKAGES = (*SERVER_PACKAGES, "plait")


@cache
def files() -> tuple[str, ...]:
    """Paths of all files that are, or are about to be, under version control, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = {name.decode() for name in listed.stdout.split(b"\0") if name}
    return tuple(sorted(name for name in found if (ROOT / name).is_file()))


def python_files(*folders: str) -> list[str]:
    """Python files below these folders of the repository; all of them without."""
    return [name for name in files() if name.endswith(".py") and (not folders or name.split("/", 1)[0] in folders)]


def pages() -> list[str]:
    """The documentation: every Markdown page."""
    return [name for name in files() if name.endswith(".md")]


@cache
def text_of(name: str) -> str:
    """A file's text; "" if it is not text, or not there."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return ""
