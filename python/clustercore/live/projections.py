"""Recommendations as files for other programs: projections of the store, never the truth.

``latest_recommendation.json`` is replaced whole, and only by a recommendation.
``recommendations.jsonl`` grows by whole lines. Both are rewritten from the store at start-up, so
that whatever a crash or a full disk left behind is gone. What must survive a power loss is in the
store already; the files are put on the disk only where a half would else be seen for the whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clustercore.recommendation import Recommendation

__all__ = ["LATEST", "LOG", "Projections"]

LATEST: Final = "latest_recommendation.json"
LOG: Final = "recommendations.jsonl"


class Projections:
    """The two files of one database.

    Parameters
    ----------
    folder : Path
        Where they lie; made when it is not there.

    Notes
    -----
    A file that cannot be written raises ``OSError``. The recommendation is in the store, so the
    caller says so and goes on; the next ``add`` writes what is owed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owed: list[Recommendation] = []

    def rewrite(self, recommendations: Sequence[Recommendation]) -> None:
        """Write both files anew from all recommendations of the store, oldest first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._owed.clear()
        _replace(self._folder / LOG, _lines(recommendations))
        if recommendations:
            self._write_latest(recommendations[-1])
        else:
            # What another database said last is no recommendation of this one.
            (self._folder / LATEST).unlink(missing_ok=True)

    def add(self, recommendation: Recommendation) -> None:
        """Append a recommendation to the log and make it the latest."""
        self._owed.append(recommendation)
        self._folder.mkdir(parents=True, exist_ok=True)
        _append(self._folder / LOG, _lines(self._owed))
        self._owed.clear()
        self._write_latest(recommendation)

    def _write_latest(self, recommendation: Recommendation) -> None:
        text = json.dumps(json.loads(recommendation.to_json()), indent=2, ensure_ascii=False)
        _replace(self._folder / LATEST, f"{text}\n")


def _lines(recommendations: Iterable[Recommendation]) -> str:
    return "".join(f"{recommendation.to_json()}\n" for recommendation in recommendations)


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _append(path: Path, text: str) -> None:
    """Append whole lines; when that fails halfway, what was there before stays alone."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            _write_all(file.fileno(), text.encode())
        except OSError:
            file.truncate(before)
            raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
