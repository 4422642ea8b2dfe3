"""Check what `make wheel` built: contents, platform tag, and that it works where there is no Rust.

The wheel is installed into an empty environment whose PATH holds neither cargo nor rustc, and runs
a backtest of the simulated sample there. The source distribution is unpacked, and cargo must find
everything it needs inside.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MODULE = "clustercore/_core.abi3.so"
IN_WHEEL = (
    MODULE,
    "clustercore/__init__.py",
    "clustercore/_core.pyi",
    "clustercore/py.typed",
    "clustercore/presets.toml",
    "clustercore/sessions.parquet",
)
LICENSES = ("LICENSE", "THIRD_PARTY_LICENSES.md")
IN_SDIST = (
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "THIRD_PARTY_LICENSES.md",
    "pyproject.toml",
    "rust/core/Cargo.toml",
    "rust/core/src/lib.rs",
    "rust/dbn/Cargo.toml",
    "rust/dbn/src/lib.rs",
    "rust/python/Cargo.toml",
    "rust/python/src/lib.rs",
    *(f"python/{name}" for name in IN_WHEEL if name != MODULE),
)
RUST_TOOLS = ("cargo", "rustc", "maturin")
# Old names of the tags; the numbers are those of glibc.
LEGACY_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


class CheckError(Exception):
    """What was built is not what may be shipped."""


def only_file(pattern: str) -> Path:
    """Return the one file in dist/ that matches."""
    files = sorted(DIST.glob(pattern))
    if len(files) != 1:
        raise CheckError(f"dist/{pattern}: found {len(files)} files, expected 1: run `make wheel`")
    return files[0]


def absent(wanted: tuple[str, ...], present: set[str]) -> list[str]:
    """Return the wanted names that are not present."""
    return [name for name in wanted if name not in present]


def check_wheel_contents(wheel: Path) -> None:
    """Refuse a wheel that lacks a file, or carries one that it should not."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        # A home at the root of the file system says nothing about anybody.
        folders = [str(path).encode() for path in (ROOT, Path.home()) if len(path.parts) > 1]
        telling = [name for name in names if any(map(archive.read(name).__contains__, folders))]
    if telling:
        raise CheckError(f"{wheel.name} names a folder of this machine in {', '.join(telling)}")
    info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/WHEEL"))
    missing = absent((*IN_WHEEL, *(f"{info}/licenses/{name}" for name in LICENSES)), names)
    # Templates and scripts of the report lie beside its modules.
    report = {name for name in names if name.startswith("clustercore/report/")}
    if not any(not name.endswith((".py", ".pyi")) for name in report):
        missing.append("clustercore/report/ (a template)")
    if missing:
        raise CheckError(f"{wheel.name} lacks {', '.join(missing)}")
    foreign = sorted(name for name in names if not name.startswith(("clustercore/", f"{info}/")))
    if foreign or any("__pycache__" in name for name in names):
        raise CheckError(f"{wheel.name} holds files that do not belong: {foreign or '__pycache__'}")
    print(f"contents: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")


def tag_floor(wheel_name: str) -> tuple[int, int]:
    """Return the oldest glibc that the wheel's file name promises to run on.

    >>> tag_floor("c-0.1.0-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl")
    (2, 17)
    >>> tag_floor("c-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl")
    (2, 34)
    """
    platform_tag = wheel_name.removesuffix(".whl").split("-")[-1]
    floors = [
        (int(major), int(minor))
        for major, minor in re.findall(r"manylinux_(\d+)_(\d+)_", platform_tag)
    ]
    floors += [floor for name, floor in LEGACY_TAGS.items() if f"{name}_" in platform_tag]
    if not floors:
        raise CheckError(f"{wheel_name} has no manylinux tag")
    return min(floors)


def needed_glibc(library: Path) -> tuple[int, int]:
    """Return the newest glibc version whose symbols the library uses."""
    versions = [(0, 0)]
    with library.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, needed in section.iter_versions():
                    for version in needed:
                        match = re.match(r"GLIBC_(\d+)\.(\d+)", version.name)
                        if match:
                            versions.append((int(match[1]), int(match[2])))
    return max(versions)


def check_platform(wheel: Path, scratch: Path) -> None:
    """Compare the tag with the symbols in the module, by our own reading and by auditwheel's."""
    if "-cp311-abi3-" not in wheel.name:
        raise CheckError(f"{wheel.name} is not an abi3 wheel for Python 3.11 and later")
    with zipfile.ZipFile(wheel) as archive:
        library = Path(archive.extract(MODULE, scratch))
    promised, needed = tag_floor(wheel.name), needed_glibc(library)
    if needed > promised:
        raise CheckError(f"{wheel.name} promises glibc {promised}, but its module needs {needed}")
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(wheel)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    audited = re.search(r'platform tag:\s+"manylinux_(\d+)_(\d+)_', shown)
    if audited is None or (int(audited[1]), int(audited[2])) > promised:
        raise CheckError(f"auditwheel does not agree with the tag:\n{shown}")
    print("platform: tag promises glibc {}.{}, symbols need {}.{}".format(*promised, *needed))


def path_without_rust() -> str:
    """Return PATH without the folders that hold a Rust tool."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(
        folder
        for folder in folders
        if not any(shutil.which(tool, path=folder) for tool in RUST_TOOLS)
    )


def requirements(wheel: Path) -> list[str]:
    """Return what the wheel needs without any extra."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    found = re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)
    return [requirement for requirement in found if "extra ==" not in requirement]


class EmptyEnvironment:
    """A virtual environment with nothing in it and no Rust tool on its PATH."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.programs = folder / "bin"
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "CARGO", "RUST", "VIRTUAL_ENV", "PYO3"))
        }
        self.variables["PATH"] = f"{self.programs}{os.pathsep}{path_without_rust()}"
        found = [tool for tool in RUST_TOOLS if shutil.which(tool, path=self.variables["PATH"])]
        if found:
            raise CheckError(f"the empty environment still has {', '.join(found)} on PATH")

    def run(self, program: str, *arguments: str) -> str:
        """Run one of the environment's programs and return what it wrote."""
        return self.start(str(self.programs / program), *arguments)

    def install(self, wheel: Path, *, lowest: bool = False) -> bool:
        """Install the wheel with its dependencies, newest or oldest; return whether it could.

        uv is quick, and alone knows how to take the oldest; pip knows the machine's configuration.
        """
        uv = Path(sys.executable).with_name("uv")
        if uv.is_file():
            resolution = "lowest-direct" if lowest else "highest"
            python = str(self.programs / "python")
            options = ("--quiet", "--python", python, "--resolution", resolution)
            # Only what is named directly is taken at its oldest, so the requirements are named too.
            named = (str(wheel), *requirements(wheel))
            try:
                self.start(str(uv), "pip", "install", *options, *named)
            except CheckError as error:
                print(f"uv could not install the wheel: {error}", file=sys.stderr)
            else:
                return True
        if not lowest:
            self.run("python", "-m", "pip", "install", "--quiet", str(wheel))
        return not lowest

    def start(self, *command: str) -> str:
        """Run a command in a folder where nothing of the checkout can be imported."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise CheckError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
        return result.stdout


def check_backtest(environment: EmptyEnvironment) -> None:
    """Run the installed package on its own sample."""
    where = "import clustercore; print(clustercore.__file__)"
    origin = environment.run("python", "-c", where).strip()
    if not Path(origin).is_relative_to(environment.folder):
        raise CheckError(f"clustercore was imported from {origin}")
    print(environment.run("python", "-c", "import clustercore; clustercore.show_versions()"))
    options = ("--preset", "default", "--out", "result")
    output = environment.run("clustercore", "backtest", *options)
    if not list((environment.folder / "result").glob("*.html")):
        raise CheckError(f"the backtest wrote no report:\n{output}")
    if "SIMULATED" not in output:
        raise CheckError(f"the summary does not say that the sample is SIMULATED:\n{output}")


def check_installed(wheel: Path, scratch: Path) -> None:
    """Run a backtest where only the wheel is installed, with its newest and oldest dependencies."""
    newest = EmptyEnvironment(scratch / "newest")
    newest.install(wheel)
    check_backtest(newest)
    print("backtest: ran without a Rust toolchain")
    oldest = EmptyEnvironment(scratch / "oldest")
    if oldest.install(wheel, lowest=True):
        check_backtest(oldest)
        print("backtest: ran with the oldest dependencies that are allowed")


def check_sdist(sdist: Path, scratch: Path) -> None:
    """Refuse a source distribution from which the module could not be built."""
    with tarfile.open(sdist) as archive:
        top = archive.getnames()[0].split("/")[0]
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
        missing = absent(IN_SDIST, names)
        if missing:
            raise CheckError(f"{sdist.name} lacks {', '.join(missing)}")
        archive.extractall(scratch, filter="data")
    # The compiler reads every file that a build reads, at a fraction of a build's time.
    subprocess.run(
        ["cargo", "check", "--quiet", "--locked", "-p", "clustercore-python"],
        cwd=scratch / top,
        env=os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target")},
        check=True,
    )
    print(f"source distribution: {len(names)} files, compiles")


def main() -> int:
    """Run all checks; return the exit status."""
    try:
        wheel, sdist = only_file("*.whl"), only_file("*.tar.gz")
        with tempfile.TemporaryDirectory(prefix="clustercore-wheel-") as folder:
            scratch = Path(folder)
            check_wheel_contents(wheel)
            check_platform(wheel, scratch)
            check_sdist(sdist, scratch)
            check_installed(wheel, scratch)
    except (CheckError, subprocess.CalledProcessError) as error:
        print(f"wheel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
