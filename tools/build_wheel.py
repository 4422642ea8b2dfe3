"""Build the wheel and the source distribution into dist/.

zig links against the symbols of an old glibc whatever the machine has, so the wheel runs on every
Linux since 2014. Where zig is missing, maturin names the oldest glibc that the machine's own
linker allows, and the tag stays true.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# manylinux2014: glibc 2.17, older than any that NumPy and Polars still support.
COMPATIBILITY = "manylinux2014"


def build_environment() -> dict[str, str]:
    """Return the environment for cargo, in which the product names no folder of this machine."""
    cargo_home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    remap = f"--remap-path-prefix={cargo_home}=cargo --remap-path-prefix={ROOT}=clustercore"
    return os.environ | {
        "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {remap}".strip(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Another linker means other artefacts; in a folder of their own, no build spoils another.
        "CARGO_TARGET_DIR": str(ROOT / "target" / "wheel"),
    }


def main() -> int:
    """Build both; return the exit status."""
    maturin = str(Path(sys.executable).with_name("maturin"))
    wheel = [maturin, "build", "--release", "--locked", "--out", "dist"]
    if importlib.util.find_spec("ziglang") is not None:
        wheel += ["--zig", "--compatibility", COMPATIBILITY]
    for command in ([maturin, "sdist", "--out", "dist"], wheel):
        result = subprocess.run(command, cwd=ROOT, env=build_environment(), check=False)
        if result.returncode != 0:
            return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
