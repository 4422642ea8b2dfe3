"""The HTML report: one file that needs no network."""

from clustercore.report.write import write_report

__all__ = ["write_report"]
