"""Look for credentials and for paths of one machine in the files that git tracks.

Exits 1 with one line a finding, 2 when it could not look. A line that must hold something that
looks like a secret carries the words ``secret-scan: allow`` and a reason.

    python tools/secret_scan.py            every tracked file, and new ones that are not ignored
    python tools/secret_scan.py FILE...    these files
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ALLOW = "secret-scan: allow"

# Each pattern is written so that it does not match its own source.
PATTERNS = {
    "Databento key": re.compile(r"\bdb-[A-Za-z0-9]{29}\b"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "package registry token": re.compile(r"\b(?:pypi-[A-Za-z0-9_-]{50,}|cio[A-Za-z0-9]{32})\b"),
    "Slack token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "password in an address": re.compile(r"\b[a-z][a-z0-9+]*://[^\s/:@{}$<>]+:[^\s/@{}$<>]+@"),
    "path of one machine": re.compile(
        r"(?<![\w.~-])(?:/(?:root|work)/[\w.]|/(?:home|Users)/[a-z][\w.-]*/|[A-Z]:\\Users\\\w)"
    ),
}
ASSIGNMENT = re.compile(
    r"(?i)[\w-]*(?:secret|token|passw(?:or)?d|api_?key|access_?key|credential)[\w-]*[\"']?\s*"
    r"(?::\s*[\w.]+\s*)?[:=]+>?\s*[\"']([^\"'\s]{16,})[\"']"
)
# Random text has letters, digits and little repetition: 16 hexadecimal digits have about 3.3 bits
# each. Names and prose have few digits.
ENTROPY_BITS = 3.0


@dataclass(frozen=True)
class Finding:
    """One line that looks like a secret; the secret itself is not repeated."""

    file: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}"


def entropy_bits(text: str) -> float:
    """Return the Shannon entropy of the characters of ``text``, in bits a character.

    >>> entropy_bits("aaaa")
    0.0
    >>> entropy_bits("abcd")
    2.0
    """
    shares = [count / len(text) for count in Counter(text).values()]
    return sum(share * math.log2(1 / share) for share in shares)


def looks_random(text: str) -> bool:
    """Return whether ``text`` could be a key rather than a name or a sentence.

    >>> looks_random("3f9c1b7ad2e84650")
    True
    >>> looks_random("your-databento-key-here")
    False
    """
    mixed = any(map(str.isdigit, text)) and any(map(str.isalpha, text))
    return mixed and entropy_bits(text) > ENTROPY_BITS


def kinds_in(line: str) -> list[str]:
    """Return what ``line`` seems to hold, as names of kinds of secrets.

    >>> kinds_in("key = " + repr("db-" + "x" * 29))
    ['Databento key']
    >>> kinds_in("api_key = os.environ['DATABENTO_API_KEY']")
    []
    """
    if ALLOW in line:
        return []
    found = [kind for kind, pattern in PATTERNS.items() if pattern.search(line)]
    if not found and any(looks_random(value) for value in ASSIGNMENT.findall(line)):
        found.append("random text assigned to a secret's name")
    return found


def scan(file: Path, name: str) -> list[Finding]:
    """Return the findings in one file; a binary file has none."""
    content = file.read_bytes()
    if b"\0" in content:
        return []
    lines = content.decode("utf-8", errors="replace").splitlines()
    return [
        Finding(name, number, kind)
        for number, line in enumerate(lines, start=1)
        for kind in kinds_in(line)
    ]


def tracked_files(root: Path) -> list[str]:
    """Return the names of the files that git tracks or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted({name for name in listing.stdout.split("\0") if name})


def main(arguments: list[str]) -> int:
    """Scan and report; return the exit status."""
    root = Path.cwd()
    try:
        names = arguments or tracked_files(root)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"cannot list the tracked files: {error}", file=sys.stderr)
        return 2
    # A file that was deleted but not yet committed is still listed.
    files = [(name, root / name) for name in names if arguments or (root / name).is_file()]
    findings = [finding for name, file in files for finding in scan(file, name)]
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings in {len(files)} files")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
