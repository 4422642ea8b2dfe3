"""Raw bytes are kept while there is room, whole records only, and never at the cost of the feed."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clustercore.live import disk
from clustercore.live.disk import CaptureFile, RawCapture, free_bytes
from clustercore.live.vendor import import_databento

DAY_NS = 86_400 * 10**9
NOW = 1_704_207_600 * 10**9  # 2024-01-02 15:00:00 UTC
RECORD = bytes(range(56))


def keep(folder: Path, name: str, *, age_days: float = 0, size: int = 10) -> Path:
    file = folder / name
    file.write_bytes(b"x" * size)
    changed = NOW - int(age_days * DAY_NS)
    os.utime(file, ns=(changed, changed))
    return file


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_free_space_is_that_of_the_folder_above(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    most = found.f_blocks * found.f_frsize
    assert 0 < free_bytes(tmp_path / "not" / "yet" / "there.duckdb") <= most


def test_each_connection_has_its_own_file(tmp_path: Path) -> None:
    capture = RawCapture(tmp_path / "raw", keep_days=3650, floor_bytes=0)
    for number in range(3):
        file = capture.open(NOW)
        assert file is not None
        file.write(RECORD * (number + 1))
    capture.close()
    capture.close()
    kept = sorted((tmp_path / "raw").iterdir())
    assert [file.name for file in kept] == [f"20240102T150000Z-{n}.dbn" for n in (1, 2, 3)]
    assert [file.stat().st_size for file in kept] == [56, 112, 168]
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(kept[0].parent.stat().st_mode) == 0o700


def test_the_vendors_client_takes_it(tmp_path: Path) -> None:
    with CaptureFile(tmp_path / "a.dbn", 0) as file:
        client = import_databento().Live(key="db-rehearsal-only-not-a-secret-0")
        client.add_stream(file)
        assert file.writable()
        assert not file.closed
    assert file.closed
    assert file.write(RECORD) == 56


def test_many_small_records_are_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = CaptureFile._write_whole

    def counted(file: CaptureFile, block: bytes) -> None:
        writes.append(len(block))
        write(file, block)

    monkeypatch.setattr(CaptureFile, "_write_whole", counted)
    with CaptureFile(tmp_path / "a.dbn", 0) as file:
        for _ in range(10_000):
            file.write(RECORD)
        file.flush()
        assert (tmp_path / "a.dbn").read_bytes() == RECORD * 10_000
    assert len(writes) == 9


def test_a_connection_without_a_byte_leaves_no_file(tmp_path: Path) -> None:
    capture = RawCapture(tmp_path, keep_days=1, floor_bytes=0)
    for _ in range(3):
        assert capture.open(NOW) is not None
    capture.close()
    assert names(tmp_path) == []


def test_a_full_disk_ends_the_capture_with_a_whole_record(tmp_path: Path) -> None:
    # The kernel takes a part of the last write and refuses the rest, as on a full disk.
    program = f"""
import logging, resource, sys
from clustercore.live.disk import RawCapture
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_FSIZE, (56 * 5 + 20, resource.RLIM_INFINITY))
capture = RawCapture({str(tmp_path)!r}, keep_days=1, floor_bytes=0)
file = capture.open({NOW})
for _ in range(2):
    file.write(bytes(56))
file.flush()
assert capture.failed is None
for _ in range(100_000):
    assert file.write(bytes(56)) == 56
file.flush()
assert "File too large" in capture.failed, capture.failed
file.write(bytes(56))
capture.close()
assert "File too large" in capture.failed, capture.failed
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("raw bytes are no longer kept") == 1
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_size == 2 * 56


def test_below_the_floor_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10**9
    monkeypatch.setattr(disk, "free_bytes", lambda _: free)
    capture = RawCapture(tmp_path, keep_days=1, floor_bytes=500_000_000)
    file = capture.open(NOW)
    assert file is not None
    for _ in range(1_000):
        file.write(RECORD)
    file.flush()
    free = 499_000_000
    for _ in range(150_000):
        file.write(RECORD)
    assert capture.failed == "499 MB are free and the floor is 500 MB"
    capture.close()
    assert 4_000_000 < file.path.stat().st_size < 5_000_000
    assert file.path.stat().st_size % 56 == 0

    assert capture.open(NOW) is None
    assert capture.failed == "499 MB are free and the floor is 500 MB"
    free = 10**9
    assert capture.open(NOW) is not None
    assert capture.failed is None
    capture.close()


def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file", encoding="utf-8")
    capture = RawCapture(tmp_path / "raw", keep_days=1, floor_bytes=0)
    assert capture.open(NOW) is None
    assert capture.failed is not None
    assert "raw" in capture.failed


def test_no_capture_is_no_failure(tmp_path: Path) -> None:
    capture = RawCapture(tmp_path / "raw", keep_days=0, floor_bytes=0)
    assert capture.open(NOW) is None
    assert capture.failed is None
    assert names(tmp_path) == []


def test_old_files_go_and_others_stay(tmp_path: Path) -> None:
    keep(tmp_path, "old.dbn", age_days=2.1)
    keep(tmp_path, "young.dbn", age_days=1.9)
    keep(tmp_path, "notes.txt", age_days=100)
    capture = RawCapture(tmp_path, keep_days=2, floor_bytes=0)
    assert capture.prune(NOW) == [tmp_path / "old.dbn"]
    assert names(tmp_path) == ["notes.txt", "young.dbn"]


def test_the_newest_stays_however_old(tmp_path: Path) -> None:
    keep(tmp_path, "b.dbn", age_days=50)
    keep(tmp_path, "a.dbn", age_days=40)
    assert RawCapture(tmp_path, keep_days=2, floor_bytes=0).prune(NOW) == [tmp_path / "b.dbn"]
    assert names(tmp_path) == ["a.dbn"]


def test_the_oldest_go_when_they_are_too_many(tmp_path: Path) -> None:
    for day in range(5):
        keep(tmp_path, f"{day}.dbn", age_days=5 - day, size=1_000)
    capture = RawCapture(tmp_path, keep_days=100, floor_bytes=0, most_bytes=2_500)
    assert [file.name for file in capture.prune(NOW)] == ["0.dbn", "1.dbn", "2.dbn"]
    capture = RawCapture(tmp_path, keep_days=100, floor_bytes=0, most_bytes=1)
    capture.prune(NOW)
    assert names(tmp_path) == ["4.dbn"]


def test_what_cannot_be_removed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(tmp_path, "a.dbn", age_days=9)
    keep(tmp_path, "b.dbn")

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert RawCapture(tmp_path, keep_days=1, floor_bytes=0).prune(NOW) == []
    assert "a.dbn cannot be removed: Permission denied" in caplog.text
