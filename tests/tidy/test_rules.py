"""The tidy rules themselves: each complains about what it is there for, and about nothing else."""

from __future__ import annotations

import pytest

from tests.tidy import code, limits, prose


def complaints(rule, text: str, *more: object) -> list[str]:
    return list(rule("folder/file.py", text, *more))


def test_a_long_file_is_noticed():
    assert complaints(code.too_long, "x = 1\n" * code.FILE_LINES_MAX) == []
    (said,) = complaints(code.too_long, "x = 1\n" * (code.FILE_LINES_MAX + 1))
    assert "701 lines" in said


def test_a_long_function_is_noticed_with_its_decorators():
    body = "    x = 1\n" * (code.FUNCTION_LINES_MAX - 1)
    assert complaints(code.too_long, f"def f():\n{body}") == []
    (said,) = complaints(code.too_long, f"@d\ndef f():\n{body}")
    assert "folder/file.py:1: f has 61 lines" in said


def test_a_test_may_be_longer():
    body = "    x = 1\n" * code.FUNCTION_LINES_MAX
    assert list(code.too_long("tests/test_x.py", f"def f():\n{body}")) == []


@pytest.mark.parametrize("text", ["", '"""What it is for."""\n'])
def test_a_module_with_a_docstring_or_nothing_in_it_is_fine(text):
    assert complaints(code.without_purpose, text) == []


def test_a_module_without_a_docstring_is_noticed():
    assert len(complaints(code.without_purpose, "x = 1\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "import os.path",
        "from os import fsync",
        "from datetime import datetime",
        "from random import random",
        "import concurrent.futures",
        "def f():\n    import secrets",
        "open('x')",
        "print(1)",
        "sorted(x, key=hash(y))",
        "await trio.sleep(1)",
        "trio.to_thread.run_sync(f)",
        "trio.socket.socket()",
    ],
)
def test_reaching_past_the_environment_is_noticed(text):
    if text.startswith("await"):
        text = f"async def f():\n    {text}"
    (said,) = complaints(code.reaching_out, text)
    assert "not for server code" in said


@pytest.mark.parametrize(
    "text",
    [
        "from random import Random",
        "import trio",
        "self.disk.open('x')",
        "clock.time()",
        "from replication.environment import Clock",
        "from .time import x",
        "trio.Event()",
        "x.hash(y)",
    ],
)
def test_keeping_to_the_environment_is_fine(text):
    assert complaints(code.reaching_out, text) == []


@pytest.mark.parametrize("caught", ["", " Exception", " BaseException as error"])
def test_catching_everything_needs_a_reason(caught):
    bare = f"try:\n    f()\nexcept{caught}:\n    g()\n"
    assert len(complaints(code.swallowing, bare)) == 1
    assert complaints(code.swallowing, bare.replace(":\n    g", ":  # the next one may work\n    g")) == []
    assert complaints(code.swallowing, bare.replace("    g()", "    # the next one may work\n    g()")) == []
    assert complaints(code.swallowing, bare.replace("g()", "raise")) == []


def test_catching_something_needs_no_reason():
    assert complaints(code.swallowing, "try:\n    f()\nexcept OSError:\n    g()\n") == []


@pytest.mark.parametrize(("comment", "count"), [("", 1), ("[x]", 1), ("  # reason", 1), ("[x]  # reason", 0)])
def test_an_ignored_type_error_needs_its_code_and_a_reason(comment, count):
    assert len(complaints(code.unreasoned_ignores, "x = 1  # type: " + "ignore" + comment)) == count


LIMITS = '''
KIB = 1_024
BUFFER_BYTES = 4 * KIB
"""Bytes that a buffer
may hold."""
WAITS_MS: tuple[int, ...] = (1, 2_000)
"""Waits."""
STALL_S = 1.5
"""Stall."""
NS_PER_S = 10**9
U8_MAX = 255
HEAD_BYTES = HEAD.size
_PRIVATE_MAX = 5
FORMAT = 1
'''


def test_limits_are_found_with_their_values_and_what_they_bound():
    assert [(each.name, each.value, each.bounds) for each in limits.limits_of("a.py", LIMITS)] == [
        ("BUFFER_BYTES", "4,096", "Bytes that a buffer may hold."),
        ("WAITS_MS", "1; 2,000", "Waits."),
        ("STALL_S", "1.5", "Stall."),
    ]


def test_a_limit_that_does_not_say_what_it_bounds_is_noticed():
    (said,) = limits.unexplained(list(limits.limits_of("a.py", "X_MAX = 1\ny = 2\n")))
    assert "X_MAX has no string under it" in said


def test_limits_that_are_missing_changed_or_gone_are_noticed_and_writing_the_page_mends_it():
    found = list(limits.limits_of("a.py", LIMITS))
    page = limits.updated("# Limits\n", found)
    assert list(limits.unlisted(page, found)) == []
    assert limits.updated(page, found) == page
    changed = list(limits.limits_of("a.py", LIMITS.replace("4 *", "8 *").replace("STALL_S", "PAUSE_S")))
    said = "\n".join(limits.unlisted(page, changed))
    assert "BUFFER_BYTES is not up to date" in said
    assert "PAUSE_S is not in" in said
    assert "STALL_S is no limit (any more)" in said
    assert list(limits.unlisted(limits.updated(page + "More.\n", changed), changed)) == []
    assert limits.updated(page + "More.\n", changed).endswith("More.\n")


PAGE = """See `scripts/test` and [the picture](docs/picture.md#here), [others](https://example.com/docs/x.md).

```sh
$ plait topic create orders    # then look into node/partition.py
PLAIT_SERVER=x plait publish orders
```

Run `plait serve`. Plait topic frobnicate is prose; so is tests/nothing.py.
"""
COMMANDS = {"serve": (), "publish": (), "topic": ("create", "list")}


def test_a_page_that_mentions_what_exists_is_fine():
    present = {"scripts/test", "node/partition.py", "docs/picture.md"}
    assert list(prose.missing_paths("README.md", PAGE, present.__contains__)) == []
    assert list(prose.broken_links("README.md", PAGE, present.__contains__)) == []
    assert list(prose.unknown_commands("README.md", PAGE, COMMANDS)) == []


def test_a_page_that_mentions_what_does_not_exist_is_noticed():
    def nothing(path: str) -> bool:
        return False

    assert [said.split(": ")[0] for said in prose.missing_paths("README.md", PAGE, nothing)] == [
        "README.md:1",
        "README.md:4",
    ]
    (said,) = prose.broken_links("README.md", PAGE, nothing)
    assert "README.md:1: links to docs/picture.md" in said
    said = "\n".join(prose.unknown_commands("README.md", PAGE, {"topic": ("list",)}))
    assert "no `plait topic create`; there are list" in said
    assert "no `plait publish`" in said
    assert "no `plait serve`" in said


def test_links_are_looked_up_from_where_the_page_is():
    asked: list[str] = []
    list(prose.broken_links("docs/a/b.md", "[x](../c.md) [y](d.md)", lambda path: not asked.append(path)))
    assert asked == ["docs/c.md", "docs/a/d.md"]


GOOD_CHANGELOG = """# Changelog

## Unreleased

### Added

- A thing that users
  will notice.

## 0.1.0 - 2026-01-31

- The first one.
"""


def test_a_tidy_changelog_is_fine():
    assert complaints(prose.untidy_changelog, GOOD_CHANGELOG) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("# Changelog", "Changes"),
        ("## Unreleased", "## Next"),
        ("### Added", "### News"),
        ("notice.", "notice"),
        ("The first one.", "The first one"),
        ("0.1.0 - 2026-01-31", "0.1.0"),
        ("## 0.1.0 - 2026-01-31", "## Unreleased"),
        (GOOD_CHANGELOG, "# Changelog\n"),
    ],
)
def test_an_untidy_changelog_is_noticed(right, wrong):
    assert len(complaints(prose.untidy_changelog, GOOD_CHANGELOG.replace(right, wrong, 1))) == 1


@pytest.mark.parametrize(
    "text", ["see /ro" + "ot/x", "in /ho" + "me/anna/y", "from /wo" + "rk/main", "https://py" + "pi.org/simple"]
)
def test_a_machines_path_or_a_registrys_host_is_noticed(text):
    assert len(complaints(prose.machine_words, text)) == 1


@pytest.mark.parametrize("text", ["/home/*", "/var/lib/plait", "a/root/b", "the root", "/tmp/x", "/dev/null"])
def test_ordinary_paths_are_fine(text):
    assert complaints(prose.machine_words, text) == []
