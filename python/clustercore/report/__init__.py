"""The HTML report: one file that needs no network."""

from __future__ import annotations

from clustercore.report.write import write_report

__all__ = ["write_report"]
