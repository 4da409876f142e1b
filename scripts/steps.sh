# Sourced by scripts/lint and scripts/test: runs named steps, says how long each took, and remembers what failed.

venv="${PLAIT_VENV:-.venv}"
failed=()

step() { # step NAME COMMAND...
    local name="$1" from="$SECONDS" verdict="ok"
    shift
    printf '\n== %s\n' "$name"
    "$@" || {
        verdict="FAILED"
        failed+=("$name")
    }
    printf -- '-- %s: %s (%d s)\n' "$name" "$verdict" "$((SECONDS - from))"
}

look_at_code() {
    step "style (ruff check)" "$venv/bin/ruff" check .
    step "format (ruff format)" "$venv/bin/ruff" format --check .
    step "types (mypy --strict)" "$venv/bin/mypy"
    step "floors (import-linter)" "$venv/bin/lint-imports" --no-cache --no-logo
}

finish() { # finish WHAT: the last word, and the exit code
    if [ "${#failed[@]}" -gt 0 ]; then
        printf '\n%s: FAILED in %d s:' "$1" "$SECONDS"
        printf ' %s;' "${failed[@]}"
        printf '\n'
        exit 1
    fi
    printf '\n%s: all passed in %d s\n' "$1" "$SECONDS"
}
