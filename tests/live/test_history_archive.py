"""A download counts when it is whole, and what is on disk covers what is asked for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import zstandard

from clustercore._core import decode_dbn
from clustercore.errors import ConfigError, DataError
from clustercore.gateway.records import encode_dbn, sample_parent_data
from clustercore.live.archive import Archive, Content, Piece, Request, _fill, months, verify

MINUTE = 60 * 10**9
DAY = 1440 * MINUTE
REQUEST = Request("GLBX.MDP3", "ohlcv-1m", "parent", ("ES.FUT",))


@pytest.fixture(scope="module")
def content() -> tuple[bytes, int, int, int]:
    """DBN bytes, their records, and the span."""
    frame = sample_parent_data(sessions=1).frame
    start = int(frame["ts_event"][0])
    end = int(frame["ts_event"][-1]) + MINUTE
    return encode_dbn(frame, schema="ohlcv-1m", start=start, end=end), len(frame), start, end


def write(tmp_path: Path, *frames: bytes) -> Path:
    path = tmp_path / "download"
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(frame) for frame in frames))
    return path


@pytest.mark.parametrize("cut", [1, 7, 8, 60, 5_000, 50_001])
def test_a_stream_of_several_frames_is_whole(
    tmp_path: Path, content: tuple[bytes, int, int, int], cut: int
) -> None:
    dbn, records, start, end = content
    found = verify(write(tmp_path, dbn[:cut], dbn[cut:]), REQUEST, start, end)
    assert (found.records, found.first, found.last) == (records, start, end - MINUTE)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999, 0.99999])
def test_a_stream_that_is_cut_anywhere_is_refused(
    tmp_path: Path, content: tuple[bytes, int, int, int], share: float
) -> None:
    dbn, _, start, end = content
    path = write(tmp_path, dbn)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="is cut off" if share else "no bytes"):
        verify(path, REQUEST, start, end)


def test_a_stream_without_its_end_is_refused_though_every_record_is_there(
    tmp_path: Path, content: tuple[bytes, int, int, int]
) -> None:
    dbn, _, start, end = content
    writer = zstandard.ZstdCompressor().compressobj()
    path = tmp_path / "download"
    path.write_bytes(writer.compress(dbn) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    with pytest.raises(DataError, match="is cut off"):
        verify(path, REQUEST, start, end)


def test_every_kind_of_damage_is_named(
    tmp_path: Path, content: tuple[bytes, int, int, int]
) -> None:
    dbn, _, start, end = content
    length = 8 + int.from_bytes(dbn[4:8], "little")
    other_kind = dbn[: length + 1] + b"\x22" + dbn[length + 2 :]
    damages = {
        "inside a record": dbn[:-1],
        "DBN header": b"<html>" * 20,
        "of another kind": other_kind,
        "other data": dbn[:24] + b"\x04\x00" + dbn[26:],
    }
    for text, damaged in damages.items():
        with pytest.raises(DataError, match=text):
            verify(write(tmp_path, damaged), REQUEST, start, end)
    for span in ((start + MINUTE, end), (start, end - MINUTE)):
        with pytest.raises(DataError, match="outside of the span"):
            verify(write(tmp_path, dbn), REQUEST, *span)
    with pytest.raises(DataError, match="DBN header"):
        verify(write(tmp_path, dbn[: length - 1]), REQUEST, start, end)
    path = tmp_path / "download"
    path.write_bytes(b"no zstd")
    with pytest.raises(DataError, match="no zstd stream"):
        verify(path, REQUEST, start, end)


def test_a_header_without_records_is_whole(
    tmp_path: Path, content: tuple[bytes, int, int, int]
) -> None:
    dbn, _, start, end = content
    length = 8 + int.from_bytes(dbn[4:8], "little")
    found = verify(write(tmp_path, dbn[:length]), REQUEST, start, end)
    assert (found.records, found.first, found.last) == (0, None, None)


def test_months_join_and_cover() -> None:
    # Over two turns of a year and a leap day.
    start, end = 19_000 * DAY + 5, 19_800 * DAY + 7
    spans = months(start, end)
    assert (spans[0][0], spans[-1][1]) == (start, end)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
    assert len(spans) == 27
    assert months(5, 5) == []


def test_a_span_is_covered_once_whatever_is_known() -> None:
    for edges in itertools.product(range(6), repeat=4):
        pieces = [
            Piece(edges[place], edges[place + 1], Path(str(place)))
            for place in (0, 2)
            if edges[place] < edges[place + 1]
        ]
        known = sorted(pieces, key=lambda piece: (piece.start, -piece.end))
        cover = list(_fill(1, 5, known))
        assert [at for piece in cover for at in range(piece.start, piece.end)] == [1, 2, 3, 4]
        held = {at for piece in pieces for at in range(piece.start, piece.end)}
        for piece in cover:
            for at in range(piece.start, piece.end):
                assert (piece.path is not None) == (at in held)


def test_requests_do_not_share_files(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    part = tmp_path / "part"
    part.write_bytes(b"x")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    kept = archive.keep(part, REQUEST, Piece(0, DAY), Content(1, 0, 0, digest))
    assert archive.plan(REQUEST, 0, DAY) == [Piece(0, DAY, kept.path)]
    others = [
        Request("GLBX.MDP3", "ohlcv-1m", "parent", ("NQ.FUT",)),
        Request("GLBX.MDP3", "trades", "parent", ("ES.FUT",)),
        Request("GLBX.MDP3", "ohlcv-1m", "raw_symbol", ("ES.FUT",)),
        Request("GLBX.MDP3", "ohlcv-1m", "parent", ("ES.FUT", "NQ.FUT")),
    ]
    for other in others:
        assert archive.plan(other, 0, DAY) == [Piece(0, DAY)]
    assert len({other.stem for other in others} | {REQUEST.stem}) == 5


def test_a_request_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="no symbol"):
        Request("GLBX.MDP3", "ohlcv-1m", "parent", ())


@pytest.mark.parametrize(
    ("name", "schema", "records"),
    [
        ("futures_ohlcv-1m_2024-05-09T09-55_2024-05-09T10-05", "ohlcv-1m", 20),
        ("futures_trades_2024-07-01T23-58_2024-07-02T00-02", "trades", None),
    ],
)
def test_files_of_the_vendor_are_whole(
    data_dir: Path, name: str, schema: str, records: int | None
) -> None:
    path = data_dir / "dbn" / "glbx" / f"{name}.dbn.zst"
    decoded = decode_dbn(path)
    request = Request("GLBX.MDP3", schema, "raw_symbol", ("ESM4",))
    span = (decoded["metadata"]["start"], decoded["metadata"]["end"])
    found = verify(path, request, *span)
    assert found.records == decoded["records"] == (records or found.records) > 0
