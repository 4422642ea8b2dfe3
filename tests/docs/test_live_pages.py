"""What the pages on live quote is what the code says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from clustercore.cli import reference
from clustercore.cli.gateway import gateway
from clustercore.config import Config
from clustercore.errors import ConfigError
from clustercore.gateway import Fault
from clustercore.gateway.faults import CONNECTION_FAULTS, MARKET_FAULTS, STREAM_FAULTS
from clustercore.gateway.historical import FAULTS as HISTORICAL_FAULTS
from clustercore.gateway.historical import HistoricalFault
from clustercore.live.settings import live_fields
from clustercore.live.status import STATES

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "clustercore"
# Where the words are those of another program.
NOT_OURS = ("## The service",)
VENDOR = frozenset({"Authentication failed", "connection limit"})


def texts() -> str:
    """Return every text of the package, with a mark where a value is put in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else "\0"
                    for part in node.values
                )
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def quoted() -> list[str]:
    """Return the messages that the failure guide quotes in the first cell of a row."""
    page = (ROOT / "docs" / "failures.md").read_text("utf-8")
    sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    rows = [
        line
        for section in sections
        if not section.startswith(NOT_OURS)
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_messages_of_the_failure_guide_exist() -> None:
    said = texts()
    messages = quoted()
    assert len(messages) > 50
    unknown = [
        message
        for message in messages
        if message not in VENDOR
        and not all(part.strip(" :()") in said for part in message.split("..."))
    ]
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize("page", ["live.md", "failures.md"])
def test_every_state_has_its_row_and_no_other(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    assert tuple(re.findall(r"^\| ([A-Z_]{4,}) \| [a-z]", text, re.MULTILINE)) == STATES


def test_every_fault_has_its_row_and_no_other() -> None:
    section = (ROOT / "docs" / "live.md").read_text("utf-8").partition("### Rehearse an outage")[2]
    for opening, faults in (
        ("The next connection meets:", CONNECTION_FAULTS),
        ("A session meets in the middle of its stream:", STREAM_FAULTS),
        ("Everybody meets:", MARKET_FAULTS),
        ("Who asks for history meets:", HISTORICAL_FAULTS),
    ):
        table = section.partition(f"{opening}\n\n")[2].partition("\n\n")[0]
        assert re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE) == [*faults.items()]


def test_every_option_of_a_fault_is_explained() -> None:
    section = (ROOT / "docs" / "live.md").read_text("utf-8").partition("### Rehearse an outage")[2]
    named = set(re.findall(r"`(\w+)`", section.partition("The next connection meets:")[0]))
    for kind in (Fault, HistoricalFault):
        assert {field.name for field in dataclasses.fields(kind)} - {"kind"} <= named


def test_every_option_of_the_gateway_is_in_the_table() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    table = page.partition("## Rehearsal")[2].partition("\n## ")[0]
    named = set(re.findall(r"`--([a-z-]+)", table))
    ours = {"start": "from", "end": "to", "limits": "no-limits"}
    options = {
        ours.get(name, name.replace("_", "-"))
        for name, option in inspect.signature(gateway).parameters.items()
        if option.kind is option.KEYWORD_ONLY
    }
    assert named == options


def test_every_setting_of_live_has_one_row() -> None:
    section = reference.settings_page().partition("## `[live]`")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE)
    assert rows == [(field["name"], field["sentence"]) for field in live_fields()]


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_settings_of_live_named_in_the_documents_exist(path: Path) -> None:
    known = {field["name"] for field in live_fields()}
    named = set(re.findall(r"`live\.([a-z_]+)`", path.read_text("utf-8")))
    assert named - {"duckdb", "log"} <= known


def test_a_table_for_live_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "es.toml"
    path.write_text('preset = "v6"\n[live]\nmax_bar_age_s = 5\n', "utf-8")
    assert Config.load(path) == Config.preset("v6")
    path.write_text("live = 5\n", "utf-8")
    with pytest.raises(ConfigError, match=r"live: .*not a table"):
        Config.load(path)


@pytest.mark.parametrize(
    ("line", "code"), [("max_bar_age_s = 5", 0), ("max_bar_age = 5", 2), ("late = 'never'", 2)]
)
def test_a_table_for_live_is_checked(line: str, code: int, tmp_path: Path) -> None:
    from clustercore.cli import main

    path = tmp_path / "es.toml"
    path.write_text(f"[live]\n{line}\n", "utf-8")
    assert main(["config", "validate", str(path)]) == code


def test_schema_knows_the_table_for_live() -> None:
    table = reference.json_schema()["properties"]["live"]
    assert table["additionalProperties"] is False
    assert table["properties"]["late"]["enum"] == ["miss", "act"]
    assert table["properties"]["max_bar_age_s"]["maximum"] == 3600
