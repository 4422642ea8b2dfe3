"""Run the command line as ``python -m clustercore``."""

from __future__ import annotations

import sys

from clustercore.cli import main

sys.exit(main())
