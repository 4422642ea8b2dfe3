"""The documents do what they say: blocks run, worked examples come out, links lead somewhere."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.rehearsal import Rehearsal

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)

# Commands of a shell block that are not run: they set up a machine, take minutes, or change the
# checkout. Every other command must be `clustercore` or `python`, so that none escapes by being
# unknown.
NOT_RUN = frozenset({"make", "pip", "git", "sed", "cd", "systemctl", "loginctl"})
RUN = frozenset({"clustercore", "python", "echo", "chmod"})
SHELL = frozenset({"console", "bash", "sh", "shell"})

FENCE = re.compile(
    r"^(?P<mark>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=mark)\s*$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line of the document it begins on."""

    language: str
    body: str
    line: int


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(match["language"], match["body"], text.count("\n", 0, match.start()) + 2)
        for match in FENCE.finditer(text)
    ]


def prose_of(path: Path) -> str:
    """Return the document without its code."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def commands_of(block: Block) -> Iterator[str]:
    """Yield the commands of a shell block; in `console` they follow a `$`, the rest is output."""
    for line in block.body.replace("\\\n", " ").splitlines():
        if block.language == "console":
            if line.startswith("$ "):
                yield line[2:].strip()
        elif line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def run_python(path: Path, block: Block, namespace: dict[str, Any]) -> None:
    # Blank lines in front, so that a traceback shows the line of the document.
    source = "\n" * (block.line - 1) + block.body
    exec(compile(source, name_of(path), "exec"), namespace)  # noqa: S102 (the documents are ours)


def run_command(command: str, rehearsal: Rehearsal) -> None:
    first = command.split(maxsplit=1)[0]
    if first in NOT_RUN:
        return
    assert first in RUN, f"neither run nor listed in NOT_RUN: {command}"
    if rehearsal.takes(shlex.split(command)):
        return
    run = subprocess.run(
        ["bash", "-c", rehearsal.adapted(command)],
        cwd=rehearsal.place_of(command),
        env=rehearsal.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    # The doctor may find something on the machine of the tests, such as a disk that is nearly full.
    allowed = {0, 1} if command.startswith("clustercore doctor") else {0}
    assert run.returncode in allowed, f"{command}\n{run.stdout}\n{run.stderr}"


def write_file(block: Block, folder: Path) -> None:
    """Write a block that begins with the name of a file as that file."""
    named = re.match(r"# (\.?[\w.]+)\n", block.body)
    if named:
        (folder / named[1]).write_text(block.body, "utf-8")


def run_document(path: Path, folder: Path) -> dict[str, Any]:
    """Run the blocks of a document in their order, and return the names its Python made."""
    namespace: dict[str, Any] = {"__name__": "document"}
    path_variable = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with contextlib.ExitStack() as stack:
        # A socket's path is short; one of pytest's folders is not.
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="cc-"))
        environ = {
            **os.environ,
            "PATH": path_variable,
            "COLUMNS": "120",
            "XDG_RUNTIME_DIR": runtime,
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        rehearsal = stack.enter_context(Rehearsal(folder, environ))
        for block in blocks_of(path):
            if block.language == "python":
                run_python(path, block, namespace)
            elif block.language == "ini":
                write_file(block, folder)
            elif block.language in SHELL:
                for command in commands_of(block):
                    run_command(command, rehearsal)
    return namespace


def slugs_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as code hosts make them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+\s+(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield target, text and whether it is an image, for every link."""
    text = prose_of(path)
    for match in LINK.finditer(text):
        yield match["target"], match["text"], bool(match["image"])
    for tag in re.findall(r"<img [^>]*>", text):
        source, alt = (re.search(rf'{name}="([^"]*)"', tag) for name in ("src", "alt"))
        yield source[1] if source else "", alt[1] if alt else "", True


# A page of commands starts a dozen programs.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_code_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    run_document(path, tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target, text, is_image in links_of(path):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.exists(), f"{name_of(path)}: {target}"
        assert page.is_relative_to(ROOT), f"{name_of(path)}: {target} leaves the repository"
        assert not anchor or anchor in slugs_of(page), f"{name_of(path)}: {target}"
        assert text.strip() or not is_image, (
            f"{name_of(path)}: {target} has no text for who cannot see it"
        )


def test_every_document_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached = {
        (index.parent / target.partition("#")[0]).resolve() for target, *_ in links_of(index)
    }
    assert {path for path in DOCUMENTS if path != index} <= reached


def test_every_drawing_is_sound_and_used() -> None:
    used = {
        (path.parent / target).resolve()
        for path in DOCUMENTS
        for target, _, is_image in links_of(path)
        if is_image
    }
    for drawing in (ROOT / "docs" / "images").iterdir():
        assert drawing in used, drawing.name
        if drawing.suffix == ".svg":
            tree = ET.parse(drawing)  # noqa: S314 (the drawings are ours)
            names = {element.tag.rpartition("}")[2] for element in tree.iter()}
            assert {"title", "desc"} <= names, f"{drawing.name} has no words for who cannot see it"
            assert "prefers-color-scheme: dark" in drawing.read_text(encoding="utf-8")


def test_paths_named_by_the_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:rust|python|tests|tools|docs|examples|benches)/[\w./-]+)`", text)
    assert len(named) >= 20
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_settings_named_in_the_documents_exist(path: Path) -> None:
    from clustercore.config import config_fields

    sections: dict[str, set[str]] = {}
    for field in config_fields():
        sections.setdefault(field["section"], set()).add(field["name"])
    # Sections whose names are also names of modules or variables in examples.
    ambiguous = {"instrument", "sessions", "session", "profile", "account", "statistics"}
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for section, name in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]+)?`", text):
        if section in sections and section not in ambiguous and name not in {"rs", "py", "md"}:
            assert name in sections[section], f"{name_of(path)}: {section}.{name}"


# Worked examples: a heading, the settings that differ, a table of bars, and what comes out.
WORKED = re.compile(
    r"^### (?P<title>[^\n]+)\n(?P<before>(?:(?!^#).)*?)"
    r"^\| bar \| open \| high \| low \| close \|[^\n]*\n\|[-| ]+\n(?P<rows>(?:\|[^\n]*\n)+)\n"
    r"Result: (?P<result>(?:(?!\n\n).)+)",
    re.MULTILINE | re.DOTALL,
)


def assignments(text: str) -> dict[str, Any]:
    """Return the `name = value` pairs of a paragraph, whose values are written as in TOML."""
    pairs = (pair.split(" = ", maxsplit=1) for pair in re.findall(r"`([^`]+ = [^`]+)`", text))
    return {name: tomllib.loads(f"value = {value}")["value"] for name, value in pairs}


def worked_examples() -> list[re.Match[str]]:
    return list(WORKED.finditer((ROOT / "docs" / "fill-rules.md").read_text(encoding="utf-8")))


def test_worked_examples_are_found() -> None:
    assert len(worked_examples()) >= 8


@pytest.mark.parametrize("example", worked_examples(), ids=lambda match: match["title"])
def test_worked_example_comes_out(
    example: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    play = run_document(ROOT / "docs" / "fill-rules.md", tmp_path)["play"]
    rows = [
        tuple(float(cell) for cell in row.split("|")[2:6]) for row in example["rows"].splitlines()
    ]
    settings = (
        example["before"].rpartition("Settings: ")[2] if "Settings: " in example["before"] else ""
    )
    result = play(rows, assignments(settings))
    expected = assignments(example["result"])
    assert expected
    trade = result.trades.row(0, named=True) if result.trades.height else {}
    order = result.orders.row(-1, named=True)
    found = {
        name: order["reason"] if name == "order" else trade.get(name, order.get(name))
        for name in expected
    }
    for name in ("entry_time", "exit_time"):
        if name in expected:
            found[name] = trade[name].strftime("%H:%M")
    assert found == expected
