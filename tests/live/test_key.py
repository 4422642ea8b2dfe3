"""The key is found where it may be, refused when it is none, and shown nowhere."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import pickle  # noqa: TID251 -- to see that a key refuses it
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clustercore.errors import ConfigError
from clustercore.live.key import Key, clean_environ, file_mode, read_key, read_variable
from clustercore.live.logs import redact

VALID = "db-" + "q7Rt" * 7 + "x"
OTHER = "db-" + "Zm3k" * 7 + "y"


def write_env(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / ".env"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def test_the_environment_comes_first_and_is_emptied_of_it(tmp_path: Path) -> None:
    write_env(tmp_path, f"DATABENTO_API_KEY={OTHER}\n")
    environ = {"DATABENTO_API_KEY": VALID, "PATH": "/bin"}
    key = read_key(environ, tmp_path)
    assert key.reveal() == VALID
    assert key.source == "the environment"
    assert environ == {"PATH": "/bin"}


def test_children_do_not_see_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", VALID)
    assert read_key(folder=tmp_path).reveal() == VALID
    child = subprocess.run(
        [sys.executable, "-c", "import os; print('DATABENTO_API_KEY' in os.environ)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == "False"


def test_nothing_of_the_file_enters_the_environment(tmp_path: Path) -> None:
    write_env(tmp_path, f"OTHER_SECRET=abc\nDATABENTO_API_KEY={VALID}\n")
    before = dict(os.environ)
    assert read_key({}, tmp_path).reveal() == VALID
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "line",
    [
        "DATABENTO_API_KEY={key}",
        'DATABENTO_API_KEY="{key}"',
        "DATABENTO_API_KEY='{key}'",
        "export DATABENTO_API_KEY={key}",
        "  DATABENTO_API_KEY = {key}  ",
        "DATABENTO_API_KEY={key} # the one for live",
        'DATABENTO_API_KEY="{key}"  # the one for live',
        "DATABENTO_API_KEY={key}\r",
        "\ufeffDATABENTO_API_KEY={key}",
        "# DATABENTO_API_KEY=db-old\nMY_DATABENTO_API_KEY=wrong\nDATABENTO_API_KEY={key}",
        "DATABENTO_API_KEY=db-old\nDATABENTO_API_KEY={key}\nDATABENTO_API_KEY_2=db-two",
    ],
)
def test_a_line_of_the_file_is_understood(tmp_path: Path, line: str) -> None:
    write_env(tmp_path, line.format(key=VALID) + "\n")
    assert read_key({}, tmp_path).reveal() == VALID


@pytest.mark.parametrize("text", ["", "DATABENTO_API_KEY=\n", 'DATABENTO_API_KEY=""\n', "A=1\n"])
def test_no_key_says_how_to_give_one(tmp_path: Path, text: str) -> None:
    write_env(tmp_path, text)
    with pytest.raises(ConfigError, match=r"there is no API key; export .*mode 0600"):
        read_key({"DATABENTO_API_KEY": "  "}, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (VALID[:-1], "31 characters"),
        (VALID + "z", "33 characters"),
        ("dx-" + VALID[3:], "another beginning"),
        (VALID[:10] + " " + VALID[11:], "spaces"),
        (VALID[:10] + "\x07" + VALID[11:], "spaces or characters"),
        (VALID[:10] + "\u00e9" + VALID[11:], "spaces or characters"),
    ],
)
def test_a_malformed_key_is_refused_without_being_shown(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Key(wrong)
    assert said in str(caught.value)
    assert wrong not in str(caught.value)
    assert wrong[-8:] not in str(caught.value)


def test_a_key_shows_itself_only_by_name() -> None:
    key = Key(VALID, "here")
    shown = [repr(key), str(key), f"{key}", f"{key!r:>20}", "%s" % key, str([key])]  # noqa: UP031
    assert not any(VALID[3:9] in text for text in shown)
    assert not hasattr(key, "__dict__")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy(key)


def test_keys_are_compared_by_what_they_hold() -> None:
    assert Key(VALID) == Key(VALID, "elsewhere")
    assert Key(VALID) != Key(OTHER)
    assert Key(VALID) != VALID
    assert len({Key(VALID), Key(VALID)}) == 1


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o644, 1)])
def test_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: int
) -> None:
    file = write_env(tmp_path, f"DATABENTO_API_KEY={VALID}\n", mode)
    with caplog.at_level(logging.WARNING):
        read_key({}, tmp_path)
    assert len(caplog.records) == warned
    assert VALID not in caplog.text
    if warned:
        assert f"chmod 600 {file}" in caplog.text
    assert file_mode(tmp_path) == mode == stat.S_IMODE(file.stat().st_mode)


def test_a_file_without_the_key_may_be_read_by_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_env(tmp_path, "COLOUR=blue\n", 0o644)
    assert read_variable("DATABENTO_API_KEY", {}, tmp_path) == (None, "nowhere")
    assert caplog.records == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigError, match=r"\.env is no file; .*export DATABENTO_API_KEY"):
        read_key({}, tmp_path)


def test_bytes_that_are_no_text_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe=\x00\nDATABENTO_API_KEY=" + VALID.encode() + b"\n")
    (tmp_path / ".env").chmod(0o600)
    assert read_key({}, tmp_path).reveal() == VALID


def test_a_file_that_an_editor_saved_as_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DATABENTO_API_KEY={VALID}\n", "utf-16")
    with pytest.raises(ConfigError, match="is not UTF-8 text; save it"):
        read_key({}, tmp_path)


def test_an_environment_for_children_has_no_secret() -> None:
    environ = {
        "DATABENTO_API_KEY": VALID,
        "CLUSTERCORE_ALERTS": "mailto://a:" + "b@c",
        "HOME": "/h",
    }
    assert clean_environ(environ) == {"HOME": "/h"}
    assert len(environ) == 3


def test_a_key_that_was_read_is_in_no_log(tmp_path: Path) -> None:
    nearly = VALID + "z"
    for text in (VALID, nearly):
        write_env(tmp_path, f"DATABENTO_API_KEY={text}\n")
        with contextlib.suppress(ConfigError):
            read_key({}, tmp_path)
        assert redact(f"the key is {text}") == "the key is [hidden]"
