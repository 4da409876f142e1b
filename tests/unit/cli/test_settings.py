"""Where settings come from, which source wins, and what mistakes are answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways.native.limits import GatewayLimits
from plait.settings import (
    Settings,
    SettingsError,
    fields,
    format_size,
    help_text,
    http_address,
    load,
    parse_address,
    parse_size,
)
from plait.wire.batch import BatchLimits
from replication.storage.settings import StorageSettings


def test_without_anything_there_are_defaults() -> None:
    assert load([], {}) == Settings()
    assert Settings().native == "127.0.0.1:4150"
    assert Settings().data == "./plait-data"


def test_a_flag_beats_a_variable_and_a_variable_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('native = "a:1"\ndata = "file"\nready_file = "file"\n[log]\nformat = "json"\n')
    variables = {"PLAIT_CONFIG": str(file), "PLAIT_DATA": "variable", "PLAIT_READY_FILE": "variable"}
    found = load(["--ready-file", "flag"], variables)
    assert (found.native, found.data, found.ready_file, found.log.format) == ("a:1", "variable", "flag", "json")


def test_the_file_that_a_flag_names_beats_the_one_of_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('native = "a:1"\n')
    assert load(["--config", str(file)], {"PLAIT_CONFIG": "/nowhere"}).native == "a:1"


@pytest.mark.parametrize("arguments", [["--log-format=json"], ["--log-format", "json"]])
def test_flags_take_their_value_either_way(arguments: list[str]) -> None:
    assert load(arguments, {}).log.format == "json"


def test_nested_settings_have_two_underscores_in_their_variable() -> None:
    assert load([], {"PLAIT_STORAGE__WAL_FILE_BYTES": "64MiB"}).storage.wal_file_bytes == 64 << 20


def test_an_empty_variable_says_nothing() -> None:
    assert load([], {"PLAIT_DATA": ""}).data == "./plait-data"


@pytest.mark.parametrize(
    "name",
    [
        "PLAIT_PORT",
        "PLAIT_PORT_4150_TCP",
        "PLAIT_PORT_4150_TCP_ADDR",
        "PLAIT_SERVICE_HOST",
        "PLAIT_0_SERVICE_PORT_A",
    ],
)
def test_variables_that_kubernetes_sets_for_a_service_are_nobodys_mistake(name: str) -> None:
    assert load([], {name: "tcp://10.0.0.1:4150"}) == Settings()


@pytest.mark.parametrize("name", ["PLAIT_SERVER", "PLAIT_NAMESPACE", "PLAIT_PROFILE", "OTHER_NATIVE"])
def test_variables_of_others_are_left_alone(name: str) -> None:
    assert load([], {name: "x"}) == Settings()


def test_an_unknown_key_of_the_file_names_its_place_and_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('[log]\nfromat = "json"\n')
    with pytest.raises(SettingsError, match=r"plait\.toml:log\.fromat; did you mean log\.format\?"):
        load(["--config", str(file)], {})


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {"PLAIT_NATVE": "x"}, "unknown variable PLAIT_NATVE; did you mean PLAIT_NATIVE?"),
        (["--natve", "x"], {}, "unknown flag --natve; did you mean --native?"),
        (["--native"], {}, "flag --native needs a value"),
        (["queue"], {}, "takes flags only, not 'queue'"),
        (["--max-record-bytes", "many"], {}, "flag --max-record-bytes: 'many' is not allowed"),
        (["--max-record-bytes", "0"], {}, "`int` >= 1"),
        ([], {"PLAIT_LOG__FORMAT": "xml"}, "variable PLAIT_LOG__FORMAT: 'xml' is not one of console, json"),
        (["--config", "/nowhere/plait.toml"], {}, "cannot read the settings file /nowhere/plait.toml"),
    ],
)
def test_a_mistake_is_named_with_its_place(arguments: list[str], variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(arguments, variables)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("native = ", "is not TOML"),
        ("log = 3\n", "plait.toml:log must be a table"),
        ("native = 3\n", "plait.toml:native: 3 is not allowed"),
        ("connections_max = true\n", "plait.toml:connections_max"),
        ("zzz = 1\n", "known are"),
    ],
)
def test_a_bad_file_is_named_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(["--config", str(file)], {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65_536), ("64KiB", 65_536), ("1 MB", 10**6), ("2gib", 2 << 30), ("7b", 7)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "1.5MiB", "-1", "3 parsecs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 3 << 20, 5 << 30])
def test_a_size_is_shown_as_it_can_be_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:4150", ("::1", 4150)), (":4150", ("127.0.0.1", 4150))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "a:b", "a:65536", "a:-1", "a:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="write HOST:PORT"):
        parse_address(text)


def test_help_shows_every_setting_with_its_variable_and_default() -> None:
    text = help_text()
    for field in fields():
        assert f"  {field.flag} " in text
        assert field.variable in text
        assert field.description in text
    assert "Default: 1MiB" in text


def test_every_setting_has_a_description_and_can_be_given_as_text() -> None:
    for field in fields():
        assert field.description
        text = "|".join(field.choices[:1]) or str(field.default)
        load([f"{field.flag}={text}"], {})


def test_defaults_are_those_of_the_server() -> None:
    settings = Settings()
    assert settings.connections_max == GatewayLimits().connections_max
    assert settings.max_record_bytes == BatchLimits().max_record_bytes
    assert settings.storage.wal_file_bytes == StorageSettings().wal_file_bytes
    assert settings.storage.min_free_bytes == StorageSettings().low_space_bytes


@pytest.mark.parametrize(
    ("http", "native", "address"),
    [
        ("", ("127.0.0.1", 4150), ("127.0.0.1", 4152)),
        ("", ("::1", 0), ("::1", 0)),
        ("", ("127.0.0.1", 65_534), None),
        ("off", ("127.0.0.1", 4150), None),
        ("0.0.0.0:80", ("127.0.0.1", 4150), ("0.0.0.0", 80)),
        (":9000", ("127.0.0.1", 4150), ("127.0.0.1", 9000)),
    ],
)
def test_where_pages_are_served(http: str, native: tuple[str, int], address: tuple[str, int] | None) -> None:
    assert http_address(http, native) == address


def test_an_address_for_pages_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError):
        http_address("nowhere", ("127.0.0.1", 4150))
