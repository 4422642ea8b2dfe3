"""The command line: options in, one result on standard output, everything else on standard error.

Nothing heavy is imported before a command runs, so that help and mistyped commands answer at once.
"""

from __future__ import annotations

from clustercore.cli.run import main

__all__ = ["main"]
