"""The wheel, installed into an empty environment, adds one name there, and a broker runs from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER_PACKAGES = ("replication", "cluster", "node", "gateways")
COMMAND_S = 120
"""Seconds after which a command is taken to hang."""

pytestmark = pytest.mark.slow


class Installed:
    """An environment with Plait's wheel in it, and nothing of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        (self.site_packages,) = (folder / "lib").glob("python*/site-packages")

    def run(self, program: str, *arguments: str, given: str = "", **variables: str) -> str:
        """What a program of the environment prints."""
        done = subprocess.run(
            [self.bin / program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            cwd=self.folder,
            env=clean_environment() | variables,
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout


def clean_environment() -> dict[str, str]:
    """This process's variables without what would lead back to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PLAIT"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=COMMAND_S,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An empty environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    environment = Installed(folder)
    quiet = ("--quiet", "--disable-pip-version-check")
    environment.run(
        "python", "-m", "pip", "install", *quiet, "--constraint", str(ROOT / "constraints.txt"), str(wheel)
    )
    return environment


@contextmanager
def broker(installed: Installed, folder: Path) -> Iterator[str]:
    """`plait serve` of the installed wheel; gives its address, and sees to it that it ends cleanly."""
    ready_file = folder / "ready.json"
    process = subprocess.Popen(
        [
            *(installed.bin / "plait", "serve", "--native", "127.0.0.1:0"),
            *("--data", folder / "data", "--ready-file", ready_file),
        ],
        cwd=folder,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "is ready" in line:
                break
        assert ready_file.exists(), "".join(said)
        yield json.loads(ready_file.read_text())["native"]
        process.terminate()
        _, rest = process.communicate(timeout=COMMAND_S)
        assert process.returncode == 0, rest
        assert not ready_file.exists()
    finally:
        process.kill()
        process.wait()


def test_the_wheel_adds_nothing_but_plait(installed: Installed) -> None:
    (metadata,) = installed.site_packages.glob("plait-*.dist-info")
    lines = (metadata / "RECORD").read_text().splitlines()
    tops = {line.split(",")[0].split("/")[0] for line in lines}
    assert tops == {"plait", metadata.name, ".."}
    scripts = [line.split(",")[0] for line in lines if line.startswith("..")]
    assert [Path(script).name for script in scripts] == ["plait"]
    assert not [name for name in SERVER_PACKAGES if (installed.site_packages / name).exists()]


def test_the_wheel_holds_the_whole_server_and_no_tests(installed: Installed) -> None:
    server = installed.site_packages / "plait" / "_server"
    assert sorted(each.name for each in server.iterdir()) == sorted(SERVER_PACKAGES)
    for package in SERVER_PACKAGES:
        wanted = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert {str(path.relative_to(server)) for path in (server / package).rglob("*.py")} == wanted
    assert not (installed.site_packages / "plait" / "tests").exists()
    assert (installed.site_packages / "plait" / "py.typed").exists()


def test_the_servers_packages_cannot_be_imported_by_others(installed: Installed) -> None:
    ask = "import importlib.util as u, plait; print([n for n in {} if u.find_spec(n)])"
    assert installed.run("python", "-c", ask.format(SERVER_PACKAGES)).strip() == "[]"


def test_a_broker_runs_from_the_wheel_and_keeps_what_it_was_given(installed: Installed, tmp_path: Path) -> None:
    with broker(installed, tmp_path) as address:
        installed.run("plait", "queue", "create", "orders", PLAIT_SERVER=address)
        installed.run("plait", "publish", "orders", "--from", "-", given="one\ntwo\n", PLAIT_SERVER=address)
    with broker(installed, tmp_path) as address:
        installed.run("plait", "publish", "orders", "three", PLAIT_SERVER=address)
        printed = installed.run("plait", "consume", "orders", "--max", "3", PLAIT_SERVER=address)
    assert printed.split() == ["one", "two", "three"]
