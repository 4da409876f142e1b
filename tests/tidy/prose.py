"""Rules about documentation and other text. Each takes a file's name and text and returns complaints."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping

Exists = Callable[[str], bool]
"""Whether the repository has a file or folder, or something that a pattern with * stands for."""

FOLDERS = (
    *("plait", "replication", "cluster", "node", "gateways"),
    *("tests", "scripts", "docs", "examples", "bench", "deploy", r"\.ci"),
)
"""Folders of the repository whose mention is taken as the mention of a path."""
ONLY_IN_THE_WHEEL = "plait/_server"

_CODE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<block>.*?)^(?P=fence)|`(?P<span>[^`\n]+)`", re.S | re.M)
_PATH = re.compile(rf"(?<![\w./:-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
_COMMAND = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ +)*plait(?P<words>(?: +[a-z][a-z-]*)+)", re.M)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")

_SECTION = re.compile(r"## (Unreleased|\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2})")
_PART = re.compile(r"### (Added|Changed|Deprecated|Removed|Fixed|Security)")

# written in pieces, so that this file does not mention what it forbids
_MACHINE_PATH = re.compile(
    r"(?<![\w.-])/(?:"
    + "|".join([r"root/[\w.]", r"home/(?!\*)[a-z]\w*/", r"Users/[A-Za-z]\w*/", r"work/(?:main|shared|in|\.)"])
    + ")"
)
_REGISTRY = re.compile("|".join([r"pypi\." + "org", "python" + "hosted", r"(?:static|index)\.crates\." + "io"]))


def code_in(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of a page's code: blocks between fences, and spans between backticks."""
    for found in _CODE.finditer(text):
        part = "block" if found["block"] is not None else "span"
        yield text.count("\n", 0, found.start(part)) + 1, found[part]


def missing_paths(name: str, text: str, exists: Exists) -> Iterator[str]:
    """Complaints about paths in a page's code that the repository does not have."""
    for line, code in code_in(text):
        for found in _PATH.finditer(code):
            path = found[0].rstrip("./") if not found[0].endswith("*") else found[0]
            if not path.startswith(ONLY_IN_THE_WHEEL) and not exists(path):
                at = line + code.count("\n", 0, found.start())
                yield f"{name}:{at}: there is no {path}: mend the mention, or make the file"


def broken_links(name: str, text: str, exists: Exists) -> Iterator[str]:
    """Complaints about links to pages that the repository does not have."""
    for found in _LINK.finditer(text):
        target = found["target"].partition("#")[0]
        if not target or ":" in target:
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if not exists(path):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{name}:{line}: links to {target}, which is not there"


def unknown_commands(name: str, text: str, commands: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Complaints about `plait` commands in a page's code that the command line does not have.

    `commands` has the verbs, and the verbs below each.
    """
    for line, code in code_in(text):
        for found in _COMMAND.finditer(code):
            verb, *more = found["words"].split()
            at = line + code.count("\n", 0, found.start("words"))
            if verb not in commands:
                yield f"{name}:{at}: there is no `plait {verb}`; there are {', '.join(commands)}"
            elif commands[verb] and more and more[0] not in commands[verb]:
                known = ", ".join(commands[verb])
                yield f"{name}:{at}: there is no `plait {verb} {more[0]}`; there are {known}"


def untidy_changelog(name: str, text: str) -> Iterator[str]:
    """Complaints about a changelog that does not read like one.

    # Changelog
    ## Unreleased               or  ## 1.2.0 - 2026-11-30
    ### Added                   or Changed, Deprecated, Removed, Fixed, Security; may be left out
    - What users will notice, as a sentence.
    """
    lines = text.splitlines()
    if not lines or lines[0] != "# Changelog":
        yield f"{name}:1: the first line must be '# Changelog'"
    item = 0
    for number, line in enumerate([*lines, ""], start=1):
        if line.startswith("  ") and item:
            continue
        if item and not lines[number - 2].endswith("."):
            yield f"{name}:{number - 1}: an entry is a sentence: it ends with a full stop"
        item = number if line.startswith("- ") else 0
        if line.startswith("### ") and not _PART.fullmatch(line):
            yield f"{name}:{number}: '{line}': say Added, Changed, Deprecated, Removed, Fixed or Security"
        elif line.startswith("## ") and not _SECTION.fullmatch(line):
            yield f"{name}:{number}: '{line}': write '## Unreleased' or '## 1.2.3 - 2026-01-31'"
    sections = [line for line in lines if line.startswith("## ")]
    if not sections:
        yield f"{name}: has no section: write '## Unreleased'"
    if "## Unreleased" in sections[1:]:
        yield f"{name}: 'Unreleased' comes first, once"


def machine_words(name: str, text: str) -> Iterator[str]:
    """Complaints about paths of somebody's machine and hosts of package registries."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _MACHINE_PATH.search(line):
            yield f"{name}:{number}: {found[0]!r} is a path of one machine: others do not have it"
        if found := _REGISTRY.search(line):
            yield f"{name}:{number}: names a package registry's host: leave that to each user's settings"
