"""The code keeps to the style guide (rules in code.py and limits.py)."""

from __future__ import annotations

import pytest

from tests.tidy import code, limits, metrics, repository
from tests.tidy.repository import text_of
from tests.tidy.write_limits import all_limits


def complain(complaints: list[str]) -> None:
    """Fail with all complaints, each on a line of its own."""
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def test_no_file_and_no_function_is_too_long():
    complain([each for name in repository.python_files() for each in code.too_long(name, text_of(name))])


def test_every_module_says_what_it_is_for():
    names = repository.python_files(*repository.PACKAGES)
    complain([each for name in names for each in code.without_purpose(name, text_of(name))])


def test_the_server_reaches_the_world_through_its_environment_only():
    names = [name for name in repository.python_files(*repository.SERVER_PACKAGES) if name != code.WORLD]
    complain([each for name in names for each in code.reaching_out(name, text_of(name))])


def test_nothing_is_swallowed_without_a_reason():
    names = repository.python_files(*repository.PACKAGES)
    complain([each for name in names for each in code.swallowing(name, text_of(name))])


def test_every_ignored_type_error_has_a_reason():
    names = repository.python_files(*repository.PACKAGES)
    complain([each for name in names for each in code.unreasoned_ignores(name, text_of(name))])


def test_every_limit_says_what_it_bounds():
    complain(list(limits.unexplained(all_limits())))


def test_every_limit_is_listed_as_it_is():
    complain(list(limits.unlisted(text_of(limits.PAGE), all_limits())))


def test_every_metric_is_listed_as_it_is():
    page = text_of(metrics.PAGE)
    assert page == metrics.updated(page), f"{metrics.PAGE} is not up to date: run scripts/metrics"
