"""A local gateway that speaks Databento's live protocol, to rehearse a day before it is real."""

from __future__ import annotations

from clustercore.gateway.faults import Fault
from clustercore.gateway.protocol import REHEARSAL_KEY
from clustercore.gateway.records import GatewayData, encode_dbn, sample_parent_data, write_dbn
from clustercore.gateway.server import Gateway

__all__ = [
    "REHEARSAL_KEY",
    "Fault",
    "Gateway",
    "GatewayData",
    "encode_dbn",
    "sample_parent_data",
    "write_dbn",
]
