"""Rules about Python code. Each takes a file's name and text and returns complaints, ready to be read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

FILE_LINES_MAX = 700
"""Lines of a file."""
FUNCTION_LINES_MAX = 60
"""Lines of a function, its decorators and docstring included."""
TEST_FUNCTION_LINES_MAX = 80
"""Lines of a test, which may be one long story."""

WORLD = "replication/real.py"
"""The one module of the server's packages that touches the machine."""

BANNED_IMPORTS = {
    "time": "take Environment.clock",
    "datetime": "take Environment.clock; stamps are milliseconds",
    "random": "take Environment.random (the type is `from random import Random`)",
    "secrets": "take Environment.random",
    "uuid": "take Environment.random",
    "os": "take Environment.disk",
    "io": "take Environment.disk",
    "pathlib": "take Environment.disk",
    "shutil": "take Environment.disk",
    "tempfile": "take Environment.disk",
    "mmap": "take Environment.disk",
    "fcntl": "take Environment.disk",
    "socket": "take Environment.network",
    "select": "take Environment.network",
    "ssl": "take Environment.network",
    "threading": "take Environment.tasks.offload",
    "_thread": "take Environment.tasks.offload",
    "concurrent": "take Environment.tasks.offload",
    "multiprocessing": "take Environment.tasks",
    "subprocess": "the server starts no processes",
    "signal": "plait/serve.py handles signals",
    "asyncio": "the server runs on trio",
    "pickle": "it runs what it reads; use cbor2",
}
"""Modules that the server's packages must not import, and what to do instead."""

ALLOWED_NAMES = {"random": {"Random"}}
"""What may be imported from a banned module after all: types."""

BANNED_CALLS = {
    "open": "take Environment.disk",
    "input": "nobody sits at a broker",
    "print": "log it (structlog), or return it",
    "eval": "write what you mean",
    "exec": "write what you mean",
    "hash": "its order differs from run to run: sort by something that means something",
    "id": "its order differs from run to run: give things numbers",
    "trio.run": "only plait/serve.py starts a loop",
    "trio.current_time": "take Environment.clock",
    "trio.sleep": "take Environment.clock.sleep_until",
    "trio.sleep_until": "take Environment.clock.sleep_until",
    "trio.sleep_forever": "wait for an event that somebody sets",
    "trio.open_file": "take Environment.disk",
    "trio.open_process": "the server starts no processes",
    "trio.run_process": "the server starts no processes",
    "trio.open_tcp_stream": "take Environment.network",
    "trio.open_tcp_listeners": "take Environment.network",
    "trio.serve_tcp": "take Environment.network",
    "trio.to_thread.run_sync": "take Environment.tasks.offload",
    "trio.from_thread.run": "take Environment.tasks.offload",
    "trio.from_thread.run_sync": "take Environment.tasks.offload",
}
"""Calls that the server's packages must not make, and what to do instead."""

BANNED_ATTRIBUTES = {"trio.socket": "take Environment.network", "trio.Path": "take Environment.disk"}


def too_long(name: str, text: str) -> Iterator[str]:
    """Complaints about a file, and functions in it, that have too many lines."""
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{name}: {lines} lines, at most {FILE_LINES_MAX}: which second noun hides in it?"
    most = TEST_FUNCTION_LINES_MAX if name.startswith("tests/") else FUNCTION_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if length > most:
                yield f"{name}:{first}: {node.name} has {length} lines, at most {most}: name a part of it"


def without_purpose(name: str, text: str) -> Iterator[str]:
    """Complaints about a module that does not say what it is for."""
    tree = ast.parse(text)
    if tree.body and ast.get_docstring(tree) is None:
        yield f"{name}:1: the module does not say what it is for: open it with a docstring"


def reaching_out(name: str, text: str) -> Iterator[str]:
    """Complaints about server code that goes past replication/environment.py."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _banned_import(name, node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                yield from _banned_import(name, node.lineno, node.module, alias.name)
        elif isinstance(node, ast.Call) and (called := _dotted(node.func)) in BANNED_CALLS:
            yield f"{name}:{node.lineno}: {called}() is not for server code: {BANNED_CALLS[called]}"
        elif isinstance(node, ast.Attribute) and (used := _dotted(node)) in BANNED_ATTRIBUTES:
            yield f"{name}:{node.lineno}: {used} is not for server code: {BANNED_ATTRIBUTES[used]}"


def swallowing(name: str, text: str) -> Iterator[str]:
    """Complaints about `except Exception` (or wider) without a sentence beside it that says why."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        wide = node.type is None or _dotted(node.type) in ("Exception", "BaseException")
        reraises = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        beside = lines[node.lineno - 2 : node.body[0].lineno]
        if wide and not reraises and not any("# " in line for line in beside):
            yield f"{name}:{node.lineno}: catches everything: say why in a comment beside it, or catch less"


def unreasoned_ignores(name: str, text: str) -> Iterator[str]:
    """Complaints about `type: ignore` without its code or without a reason."""
    marker = "# type: " + "ignore"
    for number, line in enumerate(text.splitlines(), start=1):
        if marker in line:
            rest = line.split(marker, 1)[1]
            code, _, reason = rest.partition("]")
            if not code.startswith("[") or "#" not in reason:
                yield f"{name}:{number}: write `{marker}[code]  # and why it is right`"


def _banned_import(name: str, line: int, module: str, member: str | None) -> Iterator[str]:
    top = module.split(".", 1)[0]
    if top in BANNED_IMPORTS and member not in ALLOWED_NAMES.get(module, set()):
        yield f"{name}:{line}: imports {module}, which is not for server code: {BANNED_IMPORTS[top]}"


def _dotted(node: ast.expr) -> str:
    """ "a.b.c" of an attribute chain; "" if it is something else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])
