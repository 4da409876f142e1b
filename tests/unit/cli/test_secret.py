"""The cluster's secret comes from one place, is long enough, and is shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.cli import exits
from plait.cli.main import main
from plait.secret import SECRET_CHARACTERS_MAX, SECRET_CHARACTERS_MIN, cluster_secret
from plait.serve import planned
from plait.settings import Settings, SettingsError, fields, help_text, load

SECRET = "correct horse battery staple"


def test_without_one_there_is_none() -> None:
    assert cluster_secret(Settings()) == b""


def test_it_comes_from_flag_variable_or_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"  {SECRET}\n")
    settings = tmp_path / "plait.toml"
    settings.write_text(f'cluster_secret = "{SECRET}"\n')
    for arguments, variables in (
        (["--cluster-secret", SECRET], {}),
        (["--cluster-secret-file", str(file)], {}),
        (["--config", str(settings)], {}),
        ([], {"PLAIT_CLUSTER_SECRET": SECRET + "\n"}),
        ([], {"PLAIT_CLUSTER_SECRET_FILE": str(file)}),
    ):
        assert cluster_secret(load(arguments, variables)) == SECRET.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has at least 16 characters, this one has 0; make one with: openssl rand -base64 32"),
        (b" " * 20, "this one has 0"),
        (b"x" * (SECRET_CHARACTERS_MIN - 1), "this one has 15"),
        (b"\xff" * 20, "is not text"),
        (b"x" * (SECRET_CHARACTERS_MAX + 1), "at most 1024 characters"),
        (b"x" * 100_000, "at most 1024 characters"),
    ],
)
def test_a_file_that_cannot_be_one_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as found:
        cluster_secret(Settings(cluster_secret_file=str(file)))
    assert message in str(found.value)
    assert str(file) in str(found.value)


def test_the_shortest_and_the_longest_are_taken(tmp_path: Path) -> None:
    for length in (SECRET_CHARACTERS_MIN, SECRET_CHARACTERS_MAX):
        file = tmp_path / "secret"
        file.write_text("x" * length + "\n")
        assert cluster_secret(Settings(cluster_secret_file=str(file))) == b"x" * length


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the cluster's secret from /nowhere: No such file"):
        cluster_secret(Settings(cluster_secret_file="/nowhere"))
    with pytest.raises(SettingsError, match="name the secret in one place"):
        cluster_secret(Settings(cluster_secret=SECRET, cluster_secret_file="/nowhere"))
    with pytest.raises(SettingsError, match="setting cluster_secret: a cluster's secret has at least"):
        cluster_secret(Settings(cluster_secret="short"))


def test_it_is_shown_nowhere(tmp_path: Path) -> None:
    settings = load(["--cluster-secret", SECRET], {})
    plan = planned(settings)
    assert plan.secret == SECRET.encode()
    for shown in (repr(settings), str(settings), repr(plan), help_text()):
        assert SECRET not in shown
    assert "cluster_secret='...'" in repr(settings)
    assert "native='127.0.0.1:4150'" in repr(settings)


def test_a_wrong_value_of_it_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text("cluster_secret = 1234567890123456\n")
    with pytest.raises(SettingsError) as found:
        load(["--config", str(file)], {})
    assert "1234567890123456" not in str(found.value)
    assert "plait.toml:cluster_secret" in str(found.value)


def test_only_it_is_secret() -> None:
    assert [field.key for field in fields() if field.secret] == ["cluster_secret"]


def test_the_command_line_refuses_a_short_one_without_showing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--cluster-secret", "hush"]) == exits.USAGE
    told = capsys.readouterr().err
    assert "at least 16 characters" in told
    assert "hush" not in told
