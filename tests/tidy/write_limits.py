"""What scripts/limits runs: makes the table of docs/limits.md anew."""

from __future__ import annotations

from tests.tidy import limits, repository

WITH_LIMITS = (*repository.SERVER_PACKAGES, "plait")


def all_limits() -> list[limits.Limit]:
    """The limits of everything that runs in a broker or in a client."""
    return [
        limit
        for name in repository.python_files(*WITH_LIMITS)
        for limit in limits.limits_of(name, repository.text_of(name))
    ]


def main() -> None:
    """Write the page."""
    page = repository.ROOT / limits.PAGE
    before = page.read_text(encoding="utf-8") if page.exists() else "# Limits\n"
    page.write_text(limits.updated(before, all_limits()), encoding="utf-8")


if __name__ == "__main__":
    main()
