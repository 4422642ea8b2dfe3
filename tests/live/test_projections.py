from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from clustercore.live.projections import LATEST, LOG, Projections
from clustercore.recommendation import FIRST_FIELDS, Recommendation

REC = Recommendation(
    id="a" * 32,
    seq=1,
    root="ES",
    epoch=1,
    timestamp=1_734_616_920_000_000_000,
    contract="ESZ4",
    action="BUY",
    quantity=2,
    order_type="MARKET",
    price=4574.25,
    price_is="indicative",
    validity="until 14:07:00 UTC",
    valid_until=1_734_617_220_000_000_000,
    max_hold_minutes=60,
    flat_by=1_734_645_540_000_000_000,
    stop_loss=4567.75,
    profit_target=4587.25,
    stop_distance=6.5,
    target_distance=13.0,
    confidence=None,
    confidence_low=None,
    confidence_high=None,
    signal_strength=0.69,
    bayesian_multiplier=1.0,
    modal_price=4574.75,
    modal_position=0.065,
    volume_ratio=2.29,
    risk_usd=697.5,
    reward_usd=1252.5,
    reasoning="2.3 times usual volume",
    simulated=True,
)
SECOND = replace(REC, id="b" * 32, action="SELL")


def lines(folder: Path) -> list[dict[str, object]]:
    text = (folder / LOG).read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def latest(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / LATEST).read_text(encoding="utf-8"))
    return found


def test_the_latest_has_exactly_the_named_fields(tmp_path: Path) -> None:
    Projections(tmp_path / "new").add(REC)
    document = latest(tmp_path / "new")
    assert tuple(document)[: len(FIRST_FIELDS)] == FIRST_FIELDS
    assert document == json.loads(REC.to_json())
    assert document["flat_by"] == "2024-12-19T21:59:00Z"
    assert document["timestamp"] == "2024-12-19T14:02:00Z"
    assert document["confidence"] is None
    assert document["simulated"] is True


def test_each_recommendation_is_a_line_and_the_last_is_the_latest(tmp_path: Path) -> None:
    files = Projections(tmp_path)
    files.add(REC)
    files.add(SECOND)
    assert [line["id"] for line in lines(tmp_path)] == [REC.id, SECOND.id]
    assert latest(tmp_path)["id"] == SECOND.id
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([LATEST, LOG])


def test_a_rewrite_repairs_what_a_crash_left(tmp_path: Path) -> None:
    Projections(tmp_path).add(REC)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"id": "torn')
    (tmp_path / LATEST).write_text("{")
    (tmp_path / f".{LATEST}.part").write_text("{")
    Projections(tmp_path).rewrite([REC, SECOND])
    assert [line["id"] for line in lines(tmp_path)] == [REC.id, SECOND.id]
    assert latest(tmp_path)["id"] == SECOND.id
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([LATEST, LOG])


def test_a_store_without_recommendations_has_no_latest(tmp_path: Path) -> None:
    Projections(tmp_path).add(REC)
    Projections(tmp_path).rewrite([])
    assert lines(tmp_path) == []
    assert not (tmp_path / LATEST).exists()


def test_a_full_disk_leaves_whole_lines_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Projections(tmp_path)
    files.add(REC)
    real = os.write
    calls = []

    def full(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return real(descriptor, bytes(data)[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            files.add(SECOND)
    assert len(calls) == 2
    assert [line["id"] for line in lines(tmp_path)] == [REC.id]
    third = replace(REC, id="c" * 32)
    files.add(third)
    assert [line["id"] for line in lines(tmp_path)] == [REC.id, SECOND.id, third.id]
    assert latest(tmp_path)["id"] == third.id


def test_a_failed_replacement_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Projections(tmp_path)
    files.add(REC)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(errno.EACCES, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no"):
            files.add(SECOND)
    assert latest(tmp_path)["id"] == REC.id


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    files = Projections(tmp_path)
    files.add(REC)
    done = threading.Event()
    seen: set[object] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(latest(tmp_path)["id"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(100):
            files.add(replace(REC, id=f"{number:032d}"))
    finally:
        done.set()
        reader.join()
    assert len(seen) > 1
    assert len(lines(tmp_path)) == 101


def test_the_data_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        did.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        real_sync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        did.append(f"replace {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replaced)
    Projections(tmp_path).add(REC)
    assert did == [f"sync .{LATEST}.part", f"replace {LATEST}"]
