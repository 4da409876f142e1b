"""The command line against a broker that it started itself: what people see, and what scripts can rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plait.cli.bench.broker import BrokerProcess

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S = 60
"""Seconds after which a command is taken to hang."""


def environment(**variables: str) -> dict[str, str]:
    """Variables for a command of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLAIT_")}
    return kept | {"PYTHONPATH": str(ROOT)} | variables


class CommandLine:
    """Runs `plait ...` against one broker."""

    def __init__(self, server: str) -> None:
        self.server = server

    def run(self, *arguments: str, given: bytes = b"", code: int = 0) -> str:
        """What the command prints; it must end with the code."""
        done = subprocess.run(
            [sys.executable, "-m", "plait", *arguments],
            input=given,
            capture_output=True,
            timeout=COMMAND_S,
            env=environment(PLAIT_SERVER=self.server),
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return (done.stdout if code == 0 else done.stderr).decode()

    def json(self, *arguments: str) -> object:
        """What the command says as JSON."""
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def plait(broker: BrokerProcess) -> CommandLine:
    return CommandLine(broker.address)


def test_a_queue_from_beginning_to_end(plait: CommandLine) -> None:
    assert "is there, with 1 partition" in plait.run("queue", "create", "orders", "--lease", "1m")
    assert "offset 0" in plait.run("publish", "orders", "one", "--key", "k", "--header", "a=b")
    assert "published 2 messages" in plait.run("publish", "orders", "--from", "-", given=b"two\nthree\n")
    (listed,) = [line for line in plait.run("queue", "list").splitlines() if line.startswith("orders")]
    assert listed.split()[:3] == ["orders", "1", "3"]
    assert plait.run("consume", "orders", "--max", "1") == "one\n"
    assert plait.run("consume", "orders") == "two\nthree\n"
    assert plait.run("consume", "orders") == ""
    assert plait.run("queue", "delete", "orders") == "queue orders is deleted\n"
    assert "[not_found]" in plait.run("queue", "describe", "orders", code=1)


def test_looking_into_a_queue_leaves_everything_there(plait: CommandLine) -> None:
    plait.run("queue", "create", "peek")
    plait.run("publish", "peek", "--from", "-", given=b"a\nb\n")
    assert plait.run("consume", "peek", "--no-ack") == "a\nb\n"
    assert plait.run("consume", "peek") == "a\nb\n"


def test_settings_of_a_queue_are_shown_as_they_were_given(plait: CommandLine) -> None:
    flags = ("--max-backlog-records", "5", "--overflow", "drop-oldest", "--setting", "max-publish-records-per-s=9")
    plait.run("queue", "create", "bounded", *flags)
    shown = plait.run("queue", "describe", "bounded")
    for row in ("max_backlog_records 5", "overflow drop-oldest", "max_publish_records_per_s 9", "lease_ms 30s"):
        assert row in [" ".join(line.split()) for line in shown.splitlines()]
    assert "[already_exists]" in plait.run("queue", "create", "bounded", "--lease", "5s", code=1)


def test_a_topic_is_replayed_and_a_subscription_goes_on(plait: CommandLine) -> None:
    plait.run("topic", "create", "events", "--retention", "none")
    plait.run("publish", "events", "--from", "-", given=b"a\nb\nc\n")
    assert plait.run("consume", "events") == "a\nb\nc\n"
    assert plait.run("consume", "events", "--from", "1", "--max", "1") == "b\n"
    assert plait.run("consume", "events", "--from", "end") == ""
    assert plait.run("consume", "events", "--from", "2000-01-01T00:00:00Z", "--max", "1") == "a\n"
    assert plait.run("consume", "events", "--subscription", "s", "--max", "2") == "a\nb\n"
    assert plait.run("consume", "events", "--subscription", "s", "--no-ack") == "c\n"
    assert plait.run("consume", "events", "--subscription", "s") == "c\n"
    assert plait.run("consume", "events", "--subscription", "s") == ""
    found = plait.json("topic", "describe", "events")
    assert isinstance(found, dict)
    assert found["settings"]["retention_ms"] is None
    assert [each["subscription"] for each in found["subscriptions"]] == ["s"]


def test_a_group_is_listed_and_described_while_somebody_reads(plait: CommandLine) -> None:
    plait.run("topic", "create", "shared", "--partitions", "2")
    plait.run("publish", "shared", "one")
    command = [
        sys.executable,
        "-m",
        "plait",
        "consume",
        "shared",
        "--subscription",
        "billing",
        "--group",
        "-n",
        "2",
    ]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(PLAIT_SERVER=plait.server))
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"one\n"
        assert plait.json("group", "list") == [{"members": 1, "name": "billing", "topics": ["shared"]}]
        found = plait.json("group", "describe", "billing")
        assert isinstance(found, dict)
        (member,) = found["members"]
        assert [each["member"] for each in found["topics"][0]["partitions"]] == [member["member"]] * 2
        assert "shared" in plait.run("group", "describe", "billing")
        plait.run("publish", "shared", "two")
        assert reader.stdout.readline() == b"two\n"
        assert reader.wait(COMMAND_S) == 0
    finally:
        reader.kill()
    assert plait.json("group", "list") == []
    assert "no group" in plait.run("group", "describe", "billing", code=1)
    plait.run("consume", "shared", "--group", code=2)


def test_what_consume_prints_as_json_can_be_published_again(plait: CommandLine) -> None:
    plait.run("queue", "create", "first")
    plait.run("queue", "create", "second")
    line = (
        b'{"value_base64": "/w==", "key": "k", "headers": {"h": "v"}, "timestamp_ms": 5}\n\n{"value": {"a": 1}}\n'
    )
    assert "published 2 messages" in plait.run("publish", "first", "--from", "-", "--ndjson", given=line)
    printed = plait.run("consume", "first", "--json")
    plait.run("publish", "second", "--from", "-", "--ndjson", given=printed.encode())
    again = [json.loads(text) for text in plait.run("consume", "second", "--json").splitlines()]
    assert again[0]["value_base64"] == "/w=="
    assert (again[0]["key"], again[0]["headers"], again[0]["timestamp_ms"]) == ("k", {"h": "v"}, 5)
    assert again[1]["value"] == '{"a":1}'


def test_a_line_that_is_no_message_is_named_and_those_before_it_are_there(plait: CommandLine) -> None:
    plait.run("queue", "create", "broken-lines")
    said = plait.run(
        "publish", "broken-lines", "--from", "-", "--ndjson", given=b'{"value": "x"}\nnot json\n', code=1
    )
    assert "line 2 is not JSON" in said
    assert plait.run("consume", "broken-lines") == "x\n"


def test_a_file_is_published_line_by_line(plait: CommandLine) -> None:
    plait.run("topic", "create", "quakes", "--partitions", "2")
    found = plait.json("publish", "quakes", "--from", str(ROOT / "examples/data/earthquakes.ndjson"))
    assert isinstance(found, dict)
    assert found["published"] == 1707
    assert plait.run("consume", "quakes").count("\n") == 1707


def test_names_of_one_kind_are_not_taken_for_the_other(plait: CommandLine) -> None:
    plait.run("topic", "create", "a-topic")
    assert "a-topic is a topic, not a queue" in plait.run("queue", "delete", "a-topic", code=1)
    assert "[wrong_kind]" in plait.run("queue", "describe", "a-topic", code=1)
    plait.run("topic", "delete", "a-topic")


def test_namespaces_do_not_see_each_other(plait: CommandLine) -> None:
    plait.run("--namespace", "mine", "queue", "create", "secret")
    assert plait.json("--namespace", "mine", "queue", "list")
    assert plait.json("--namespace", "yours", "queue", "list") == []


def test_waiting_in_vain_ends_with_4(plait: CommandLine) -> None:
    plait.run("queue", "create", "empty")
    assert "--timeout" in plait.run("consume", "empty", "--follow", "--timeout", "0.5", code=4)


def test_a_reader_that_leaves_gets_what_it_read_and_the_queue_keeps_the_rest(plait: CommandLine) -> None:
    plait.run("queue", "create", "piped")
    plait.run("publish", "piped", "--from", "-", given=b"".join(b"%06d\n" % number for number in range(30_000)))
    command = [sys.executable, "-m", "plait", "consume", "piped"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(PLAIT_SERVER=plait.server)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"000000\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(COMMAND_S) == 0
    rest = plait.run("consume", "piped").splitlines()
    assert rest[-1] == "029999"
    assert "000000" not in rest


def test_ctrl_c_is_silent_and_130(plait: CommandLine) -> None:
    plait.run("queue", "create", "followed")
    plait.run("publish", "followed", "x")
    process = subprocess.Popen(
        [sys.executable, "-m", "plait", "consume", "followed", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PLAIT_SERVER=plait.server),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"x\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=COMMAND_S)
    assert (process.returncode, said) == (130, b"")


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    """A broker that is not expected to start."""
    command = [sys.executable, "-m", "plait", "serve", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, env=environment())


def test_an_address_in_use_is_one_clear_line(broker: BrokerProcess, tmp_path: Path) -> None:
    done = serve("--native", broker.address, "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert (
        f"plait: {broker.address} is in use by another program; choose another address with --native"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_folder_in_use_is_one_clear_line(broker: BrokerProcess) -> None:
    done = serve("--native", "127.0.0.1:0", "--data", str(broker.folder / "data"))
    assert done.returncode == 1
    assert "another process has this data directory open" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = serve("--native", "127.0.0.1:0", "--data", str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith("plait: cannot use ")
    assert done.stderr.count("\n") == 1


def test_the_ready_file_says_where_it_listens_and_goes_when_it_ends(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path)
    broker.start()
    found = json.loads((tmp_path / "ready.json").read_text())
    assert found["pid"] == broker.pid
    assert found["native"] == broker.address
    assert found["data"] == str(tmp_path / "data")
    assert f"native  {broker.address}" in broker.said()
    broker.stop()
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_broker_cleanly_and_its_data_stay(number: signal.Signals, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path, ["--log-format", "json"])
    broker.start()
    CommandLine(broker.address).run("queue", "create", "kept")
    CommandLine(broker.address).run("publish", "kept", "x")
    broker.stop(number)
    for line in broker.said().splitlines():
        assert json.loads(line)["event"]
    with broker:
        assert CommandLine(broker.address).run("consume", "kept") == "x\n"
