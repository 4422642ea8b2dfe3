"""Write THIRD_PARTY_LICENSES.md: the licences of the crates that are linked into the module.

Everything comes from ``cargo metadata`` and the sources that cargo has already fetched. Crates
that only help to build (build scripts, procedural macros) leave nothing in the module and are not
listed.

    python tools/third_party_licenses.py            write the file
    python tools/third_party_licenses.py --check    exit 1 when the file is not up to date
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "THIRD_PARTY_LICENSES.md"
MODULE_CRATE = "clustercore-python"
# One platform, so that the file does not depend on where it was made.
PLATFORM = "x86_64-unknown-linux-gnu"

# Where a crate offers a choice, the first of these is taken. A licence that is not here must be
# read by a person first.
ACCEPTED = (
    "MIT",
    "BSD-3-Clause",
    "BSD-2-Clause",
    "Apache-2.0",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
)
FILE_HINTS = {
    "MIT": "MIT",
    "BSD-3-Clause": "BSD",
    "BSD-2-Clause": "BSD",
    "Apache-2.0": "APACHE",
    "BSL-1.0": "BOOST",
}
LICENSE_FILE = re.compile(r"(?i)^(licen[cs]e|copying|unlicense|notice|copyright)([.\-_].*)?$")
# Sources of other projects inside a crate, with licences of their own.
BUNDLED = {"zstd-sys": ["zstd/LICENSE"]}

HEADER = """\
# Third-party licences

The extension module `clustercore._core` contains the Rust crates listed here, each under the
licence named beside it. The Rust standard library is linked in as well, under MIT or Apache-2.0
(The Rust Project Developers). The text of Apache-2.0 stands in the file LICENSE. Python packages
are installed beside clustercore, not inside it, and carry their own licences.

`make licenses` writes this file from the sources that cargo fetched.
"""


class LicenseError(Exception):
    """A crate whose licence is unknown, not accepted or without a text."""


@dataclass(frozen=True)
class Crate:
    """One crate that is part of the module."""

    name: str
    version: str
    expression: str
    folder: Path


def linked_crates(metadata: dict[str, Any]) -> list[Crate]:
    """Return the foreign crates that the module links, ascending by name and version."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    open_ids = [id_ for id_, package in packages.items() if package["name"] == MODULE_CRATE]
    seen: set[str] = set()
    while open_ids:
        id_ = open_ids.pop()
        if id_ in seen or is_procedural_macro(packages[id_]):
            continue
        seen.add(id_)
        open_ids.extend(
            dependency["pkg"]
            for dependency in nodes[id_]["deps"]
            # The kind of an ordinary dependency is null; the others are "build" and "dev".
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        )
    return sorted(
        (
            Crate(
                package["name"],
                package["version"],
                package["license"] or "",
                Path(package["manifest_path"]).parent,
            )
            for package in (packages[id_] for id_ in seen)
            if package["source"] is not None
        ),
        key=lambda crate: (crate.name, crate.version),
    )


def is_procedural_macro(package: dict[str, Any]) -> bool:
    """Return whether a package runs inside the compiler only."""
    return any("proc-macro" in target["kind"] for target in package["targets"])


def choose(expression: str) -> tuple[str, ...]:
    """Return the licences of an SPDX expression under which the crate is used.

    >>> choose("Apache-2.0 OR MIT")
    ('MIT',)
    >>> choose("Unlicense/MIT")
    ('MIT',)
    >>> choose("MIT AND BSD-3-Clause")
    ('MIT', 'BSD-3-Clause')
    >>> choose("(MIT OR Apache-2.0) AND Unicode-3.0")
    ('MIT', 'Unicode-3.0')
    """
    chosen = []
    for part in re.split(r"\s+AND\s+", expression.replace("(", "").replace(")", "")):
        alternatives = [name.strip() for name in re.split(r"\s+OR\s+|/", part)]
        accepted = [name for name in ACCEPTED if name in alternatives]
        if not accepted:
            raise LicenseError(f"the licence {expression!r} is not on the accepted list")
        chosen.append(accepted[0])
    return tuple(chosen)


def license_texts(crate: Crate, chosen: tuple[str, ...]) -> list[str]:
    """Return the texts that must accompany the crate."""
    files = sorted(file for file in crate.folder.iterdir() if LICENSE_FILE.match(file.name))
    hints = [FILE_HINTS.get(name, name).upper() for name in chosen]
    # A crate under a choice of licences has a file for each; of those, only the chosen ones apply.
    matching = [file for file in files if any(hint in file.name.upper() for hint in hints)]
    plain = [file for file in files if file.name.upper().split(".")[0] in {"LICENSE", "LICENCE"}]
    notices = [file for file in files if file.name.upper().startswith(("NOTICE", "COPYRIGHT"))]
    selected = (matching or plain or files) + notices
    selected += [crate.folder / name for name in BUNDLED.get(crate.name, [])]
    if not selected and chosen != ("Apache-2.0",):
        raise LicenseError(f"{crate.name} {crate.version} has no licence file")
    unique = dict.fromkeys(
        tidy(file.read_text(encoding="utf-8", errors="replace")) for file in selected
    )
    return list(unique)


def tidy(text: str) -> str:
    """Return a licence's text with one kind of line ending and no blanks at line ends."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def render(crates: list[Crate]) -> str:
    """Return the whole document."""
    table = ["| crate | version | licence | used under |", "|---|---|---|---|"]
    texts: dict[str, tuple[str, list[str]]] = {}
    for crate in crates:
        chosen = choose(crate.expression)
        table.append(
            f"| {crate.name} | {crate.version} | {crate.expression} | {' and '.join(chosen)} |"
        )
        for text in license_texts(crate, chosen):
            digest = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            texts.setdefault(digest, (text, []))[1].append(f"{crate.name} {crate.version}")
    sections = [f"## {', '.join(names)}\n\n```text\n{text}\n```" for text, names in texts.values()]
    return "\n".join([HEADER, *table, "", "\n\n".join(sections), ""])


def read_metadata() -> dict[str, Any]:
    """Return cargo's description of the workspace and everything it depends on."""
    result = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={PLATFORM}"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    metadata: dict[str, Any] = json.loads(result.stdout)
    return metadata


def main(arguments: list[str]) -> int:
    """Write or check the file; return the exit status."""
    try:
        crates = linked_crates(read_metadata())
        text = render(crates)
    except LicenseError as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" not in arguments:
        OUTPUT.write_text(text, encoding="utf-8")
        print(f"{OUTPUT.name}: {len(crates)} crates")
        return 0
    if not OUTPUT.is_file() or OUTPUT.read_text(encoding="utf-8") != text:
        print(f"{OUTPUT.name} is not up to date: run `make licenses`", file=sys.stderr)
        return 1
    print(f"{OUTPUT.name} is up to date: {len(crates)} crates")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
