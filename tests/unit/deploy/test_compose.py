"""docker-compose.yml, the Dockerfile and the unit of systemd tell Plait only what it knows, and fit together."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from plait.secret import cluster_secret
from plait.serve import planned
from plait.settings import VARIABLES_OF_OTHERS, fields, load

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
NODES = ("node1", "node2", "node3")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KNOWN = {field.variable for field in fields()} | {f"PLAIT_{name}" for name in VARIABLES_OF_OTHERS}
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def filled(text: str) -> str:
    """As docker compose fills it in, with nothing in the environment."""
    return DEFAULT.sub(r"\1", text)


def variables(node: str) -> dict[str, str]:
    """What a node is told, by its service and by its image."""
    told = {name: filled(value) for name, value in COMPOSE["services"][node]["environment"].items()}
    image = dict(re.findall(r"(PLAIT_\w+)=(\S+)", DOCKERFILE))
    return {**image, **told}


def test_there_are_three_nodes_with_a_volume_each() -> None:
    assert tuple(COMPOSE["services"]) == NODES
    assert tuple(COMPOSE["volumes"]) == NODES
    for node in NODES:
        assert COMPOSE["services"][node]["volumes"] == [f"{node}:/data"]


@pytest.mark.parametrize("node", NODES)
def test_every_variable_is_a_setting(node: str) -> None:
    assert set(variables(node)) <= KNOWN


@pytest.mark.parametrize(("number", "node"), list(enumerate(NODES, 1)))
def test_a_node_is_one_of_the_founders_and_is_reached_where_it_says(number: int, node: str) -> None:
    plan = planned(load([], variables(node)))
    found = plan.addresses
    assert found.node_id == number
    assert found.initial == {at: (f"node{at}", 4151) for at in (1, 2, 3)}
    assert found.native_told == ("127.0.0.1", 4050 + 100 * number)
    assert COMPOSE["services"][node]["ports"] == [
        f"127.0.0.1:${{NODE{number}_PORT:-{found.native_told[1]}}}:${{NODE{number}_PORT:-{found.native[1]}}}"
    ]
    assert found.http == ("0.0.0.0", 4152)
    assert found.peer == ("0.0.0.0", 4151)
    assert variables(node)["PLAIT_SERVER"] == f"127.0.0.1:{found.native[1]}"


def test_all_have_the_same_secret_and_another_can_be_said() -> None:
    secrets = {cluster_secret(load([], variables(node))) for node in NODES}
    assert len(secrets) == 1
    assert all(
        COMPOSE["services"][node]["environment"]["PLAIT_CLUSTER_SECRET"].startswith("${PLAIT_CLUSTER_SECRET:-")
        for node in NODES
    )


def test_a_node_may_do_little_and_its_health_is_watched() -> None:
    for node in NODES:
        service = COMPOSE["services"][node]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["restart"] == "unless-stopped"
        assert "http://127.0.0.1:4152/readyz" in service["healthcheck"]["test"][-1]


def test_the_image_has_what_it_copies_and_is_not_roots() -> None:
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M):
        for name in source.split():
            assert (ROOT / name).exists()
            assert f"!{name}\n" in (ROOT / ".dockerignore").read_text()
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    assert DOCKERFILE.startswith("#")
    assert "\nARG PYTHON_IMAGE=python:3.11-slim\n" in DOCKERFILE
    assert '\nENTRYPOINT ["plait", "serve"]\n' in DOCKERFILE
    assert "\nVOLUME /data\n" in DOCKERFILE


def test_the_unit_of_systemd_and_its_settings_are_right(tmp_path: Path) -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys of units have capitals
    unit.read(ROOT / "deploy/systemd/plait.service")
    assert unit["Service"]["ExecStart"] == "/opt/plait/bin/plait serve --config /etc/plait/plait.toml"
    text = (ROOT / "deploy/systemd/plait.toml").read_text()
    assert tomllib.loads(text)["data"] == f"/var/lib/{unit['Service']['StateDirectory']}"
    secret = tmp_path / "secret"
    secret.write_text("sixteen characters\n")
    file = tmp_path / "plait.toml"
    file.write_text(text.replace("/etc/plait/cluster-secret", str(secret)))
    plan = planned(load(["--config", str(file)], {}))
    assert plan.addresses.node_id == 1
    assert plan.secret == b"sixteen characters"
