"""Documentation, scripts and everything else that is not code (rules in prose.py)."""

from __future__ import annotations

import os

import pytest

from plait.cli.app import build
from tests.tidy import prose, repository
from tests.tidy.repository import ROOT, text_of

PAGES_REQUIRED = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs/architecture.md",
    "docs/limits.md",
)
BLOB_BYTES_MAX = 4 * 1_048_576
"""Bytes of one file under version control."""


def complain(complaints: list[str]) -> None:
    """Fail with all complaints, each on a line of its own."""
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def exists(path: str) -> bool:
    """Whether the repository has the path; a module may be named without its ending."""
    if "*" in path:
        return next(ROOT.glob(path), None) is not None
    return (ROOT / path).exists() or (ROOT / f"{path}.py").exists()


def commands() -> dict[str, tuple[str, ...]]:
    """The verbs of the command line, and those below each."""
    app = build()
    verbs = [verb for verb in app if not verb.startswith("-")]
    return {verb: tuple(more for more in app[verb] if not more.startswith("-")) for verb in verbs}


def test_the_pages_that_everybody_looks_for_are_there():
    complain([f"{name} is missing" for name in PAGES_REQUIRED if not (ROOT / name).is_file()])


def test_pages_mention_only_paths_that_exist():
    complain([each for name in repository.pages() for each in prose.missing_paths(name, text_of(name), exists)])


def test_pages_link_only_to_pages_that_exist():
    complain([each for name in repository.pages() for each in prose.broken_links(name, text_of(name), exists)])


def test_pages_mention_only_commands_that_exist():
    known = commands()
    complain([each for name in repository.pages() for each in prose.unknown_commands(name, text_of(name), known)])


def test_the_changelog_reads_like_one():
    complain(list(prose.untidy_changelog("CHANGELOG.md", text_of("CHANGELOG.md"))))


def test_nothing_names_a_machine_or_a_registry():
    complain([each for name in repository.files() for each in prose.machine_words(name, text_of(name))])


def test_scripts_can_be_run():
    scripts = [name for name in repository.files() if name.startswith(("scripts/", ".ci/"))]
    complain(
        [
            f"{name}: has no run bit: chmod +x {name}"
            for name in scripts
            if text_of(name).startswith("#!") and not os.access(ROOT / name, os.X_OK)
        ]
        + [
            f"{name}: can be run, but its first line does not say by what (#!)"
            for name in scripts
            if os.access(ROOT / name, os.X_OK) and not text_of(name).startswith("#!")
        ]
    )


def test_no_file_is_a_blob():
    sizes = {name: (ROOT / name).stat().st_size for name in repository.files()}
    complain(
        [
            f"{name}: {size:,} bytes, at most {BLOB_BYTES_MAX:,}"
            for name, size in sizes.items()
            if size > BLOB_BYTES_MAX
        ]
    )
