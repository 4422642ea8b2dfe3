"""A day that a live process recorded is served again by the gateway."""

from __future__ import annotations

from pathlib import Path

from clustercore.gateway import Fault, GatewayData, sample_parent_data
from tests.live.harness import live, part


def test_what_a_live_process_recorded_is_the_market_again(tmp_path: Path) -> None:
    data = part(sample_parent_data(sessions=1), 0, 2)
    faults = [Fault(kind, after_bars=60) for kind in ("rst", "fin_mid_record", "freeze", "fin")]
    run = live(data, tmp_path, faults=faults)
    assert run.code == 0
    recorded = sorted((tmp_path / "raw").iterdir())
    assert len(recorded) == len(run.connections) == 5
    again = GatewayData.from_files(recorded)
    assert again.frame.equals(data.frame)
    assert again.ids == data.ids
    assert again.simulated
