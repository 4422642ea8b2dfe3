"""The unit is one that systemd takes, and the command in it is the one that was asked for."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from clustercore.errors import ConfigError
from clustercore.live.service import UNIT_NAME, install, live_command, unit_text

KEY = "db-" + "q7Rt" * 7 + "x"


def settings(text: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser["Service"]


def make(folder: Path, *arguments: str) -> str:
    return unit_text(arguments, folder=folder, writable=[folder])


def test_the_unit_is_watched_and_kept_in(tmp_path: Path) -> None:
    service = settings(make(tmp_path, "--db", "live.duckdb"))
    assert service["Type"] == "notify"
    assert service["WatchdogSec"] == "60"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "1 2"
    assert service["KillSignal"] == "SIGTERM"
    assert service["TimeoutStopSec"] == "10"
    assert service["UMask"] == "0077"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == str(tmp_path)
    assert service["ExecStart"] == " ".join(live_command(["--db", "live.duckdb"]))
    assert "EnvironmentFile" not in service


def test_an_environment_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "live.env"
    text = unit_text([], folder=tmp_path, writable=[tmp_path], environment_file=file)
    assert settings(text)["EnvironmentFile"] == str(file)


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("a b", '"a b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("50%", "50%%"),
        ("$HOME", '"$$HOME"'),
        ("back\\slash", '"back\\\\slash"'),
        ("it's;", '"it\'s;"'),
        ("", '""'),
    ],
)
def test_arguments_arrive_as_they_are(tmp_path: Path, argument: str, written: str) -> None:
    command = settings(make(tmp_path, argument))["ExecStart"]
    assert command.endswith(f" live {written}")


def test_a_key_or_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="read by everybody") as caught:
        make(tmp_path, f"--key={KEY}")
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="a line break"):
        make(tmp_path, "a\nExecStartPre=/bin/evil")
    with pytest.raises(ConfigError, match="a line break"):
        make(tmp_path / "a\nb")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = install(make(tmp_path), dry_run=True, environ={"HOME": str(tmp_path)})
    assert done.changed
    assert done.path == tmp_path / ".config/systemd/user" / UNIT_NAME
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_once_and_replaced_when_it_changed(tmp_path: Path) -> None:
    environ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    first = install(make(tmp_path), environ=environ)
    assert first.changed
    assert first.path.read_text(encoding="utf-8") == first.text
    assert not install(make(tmp_path), environ=environ).changed
    second = install(make(tmp_path, "--symbol", "NQ"), environ=environ)
    assert second.changed
    assert "--symbol NQ" in second.path.read_text(encoding="utf-8")
    assert [file.name for file in first.path.parent.iterdir()] == [UNIT_NAME]
    assert f"systemctl --user enable --now {UNIT_NAME}" in first.next_steps


def test_what_somebody_else_wrote_stays(tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user" / UNIT_NAME
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match="not written by this command"):
            install(make(tmp_path), dry_run=dry_run, environ={"HOME": str(tmp_path)})
    assert "bin/true" in unit.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"clustercore-live\.service cannot be written"):
        install(make(tmp_path), environ={"HOME": str(tmp_path)})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
@pytest.mark.parametrize("scope", ["--user", "--system"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, scope: str) -> None:
    folder = tmp_path / "a folder, 50% full"
    folder.mkdir()
    (folder / ".env").touch()
    text = unit_text(
        ["--db", "a b.duckdb", "--symbol", "ES", "$HOME", '"', "50%"],
        folder=folder,
        writable=[folder, tmp_path],
        environment_file=folder / ".env",
    )
    assert complaints(tmp_path, scope, text) == []
    # The judge is awake.
    assert complaints(tmp_path, scope, text.replace("WatchdogSec=60", "WatchdogSec=often")) != []


def complaints(folder: Path, scope: str, text: str) -> list[str]:
    unit = folder / UNIT_NAME
    unit.write_text(text, encoding="utf-8")
    run = subprocess.run(
        ["systemd-analyze", scope, "--man=no", "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder)},
    )
    return [line for line in run.stderr.splitlines() if UNIT_NAME in line]
