"""Rules of CONTRIBUTING.md that no general tool checks, and proof that our own tools can fail."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import conftest
from tools import check_wheel, secret_scan, third_party_licenses

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "clustercore"
MODULES = sorted(PACKAGE.rglob("*.py"))
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Put together here, so that the scan of this file finds nothing.
DATABENTO_KEY = "db-" + "7fK2mQ9xW4tR8vN3pL6sD1hJ5gB0c"
MACHINE_PATHS = [
    "/ro" + "ot/.cargo/bin",
    "/wo" + "rk/main",
    "/ho" + "me/ann/data/es.dbn",
    "/Us" + "ers/ann/es.csv",
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked_files() -> list[str]:
    try:
        return secret_scan.tracked_files(ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")


def imported_names(module: Path) -> set[str]:
    """Return the dotted names a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f'DATABENTO_API_KEY="{DATABENTO_KEY}"', "Databento key"),
        (f"see {DATABENTO_KEY}.", "Databento key"),
        ("AKIA" + "IOSFODNN7EXAMPLE", "AWS access key"),
        ("-----BEGIN " + "RSA PRIVATE KEY-----", "private key"),
        ("-----BEGIN " + "PRIVATE KEY-----", "private key"),
        ("gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "GitHub token"),
        ("https://" + "ann:hunter2" + "@example.org/simple", "password in an address"),
        (
            "webhook_secret: " + "'q8Zr2Vx5Lw0Tn7Yb4Kc9Hd'",
            "random text assigned to a secret's name",
        ),
        ('"api_key": ' + '"3f9c1b7ad2e84650"', "random text assigned to a secret's name"),
        *((f"data = '{path}'", "path of one machine") for path in MACHINE_PATHS),
    ],
)
def test_the_secret_scan_finds(line: str, kind: str) -> None:
    assert secret_scan.kinds_in(line) == [kind]


@pytest.mark.parametrize(
    "line",
    [
        'key = os.environ["DATABENTO_API_KEY"]',
        "db-1.2.3",
        "password: str",
        'token = "the next word of the line"',
        'api_key="your-databento-key-here"',
        "https://example.org/home/ann/page",
        "../shared/data/dbn",
        f"{DATABENTO_KEY}  # secret-scan: " + "allow, made up",
    ],
)
def test_the_secret_scan_passes_ordinary_lines(line: str) -> None:
    assert secret_scan.kinds_in(line) == []


def test_the_secret_scan_fails_on_a_file_and_does_not_repeat_the_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"[live]\nkey = '{DATABENTO_KEY}'\n", encoding="utf-8")

    assert secret_scan.main([str(file)]) == 1

    output = capsys.readouterr().out
    assert f"{file}:2: Databento key" in output
    assert DATABENTO_KEY not in output


def test_the_repository_holds_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    names = tracked_files()
    findings = [
        finding
        for name in names
        if (ROOT / name).is_file()
        for finding in secret_scan.scan(ROOT / name, name)
    ]
    assert len(names) > 10
    assert findings == []


def test_no_market_data_and_no_large_file_is_tracked() -> None:
    # The generated session table and the report's template are the largest things that belong here.
    largest_bytes = 1_000_000
    for name in tracked_files():
        path = ROOT / name
        if not path.is_file():
            continue
        assert not name.endswith((".dbn", ".zst", ".duckdb")), f"{name} looks like market data"
        assert path.stat().st_size <= largest_bytes, f"{name} is larger than {largest_bytes} bytes"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_names_say_what_is_inside(path: Path) -> None:
    stems = set(path.relative_to(PACKAGE).with_suffix("").parts)
    assert not stems & {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not any(re.search(r"^\d|_v\d+$|_(fixed|new|old|final)$", stem) for stem in stems)


def test_no_emoji_and_no_unfinished_work() -> None:
    unfinished = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|Not" + r"ImplementedError")
    emoji = re.compile("[\U0001f000-\U0001faff\u2600-\u26ff\u2705\u274c]")
    found = [
        f"{name}:{number}"
        for name in tracked_files()
        if name.endswith((".py", ".rs", ".toml", ".md", ".sh", ".html", ".js"))
        and (ROOT / name).is_file()
        for number, line in enumerate(
            (ROOT / name).read_text(encoding="utf-8").splitlines(), start=1
        )
        if unfinished.search(line) or emoji.search(line)
    ]
    assert found == []


# import-linter sees Python modules only, and the native one is not: these may import it.
MAY_IMPORT_CORE = {
    "__init__",
    "backtest",
    "bars",
    "config",
    "contracts",
    "engine",
    "events",
    "gateway",
    "instruments",
    "kernels",
    "manifest",
    "quality",
    "result",
    "sample",
    "sessions",
    "sources",
    "statistics",
    "store",
}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_lower_layers_import_the_native_module(path: Path) -> None:
    if path.relative_to(PACKAGE).with_suffix("").parts[0] not in MAY_IMPORT_CORE:
        assert not any(name.startswith("clustercore._core") for name in imported_names(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_vendors_and_heavy_modules_are_imported_where_they_are_used(path: Path) -> None:
    heavy = {"databento", "databento_dbn", "duckdb", "pandas", "pyarrow", "plotly", "jinja2", "ray"}
    # The report is itself imported only when one is written.
    if path.is_relative_to(PACKAGE / "report"):
        heavy -= {"plotly", "jinja2"}
    # So is the store when a database is opened.
    if path.is_relative_to(PACKAGE / "store"):
        heavy -= {"duckdb"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    roots = {
        name.split(".")[0]
        for node in at_import
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert not roots & heavy


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import json, sys, clustercore\n"
        "heavy = {'databento', 'duckdb', 'pandas', 'pyarrow', 'plotly', 'jinja2', 'rich'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert json.loads(run.stdout) == []


def test_the_core_crate_knows_neither_python_nor_a_clock() -> None:
    manifest = tomllib.loads((ROOT / "rust/core/Cargo.toml").read_text(encoding="utf-8"))
    forbidden = {"pyo3", "numpy", "polars", "rand", "getrandom", "chrono", "time", "log", "tracing"}
    assert not forbidden & set(manifest["dependencies"])

    def banned(file: str) -> set[str]:
        rules = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))
        return {rule["path"] for rule in rules["disallowed-methods"]}

    # clippy reads the nearest file only, so the core's must hold all of the workspace's.
    assert banned("clippy.toml") <= banned("rust/core/clippy.toml")


def test_every_dependency_states_its_bounds() -> None:
    for requirement in PYPROJECT["project"]["dependencies"]:
        assert ">=" in requirement, requirement
        assert "<" in requirement or requirement.startswith("tzdata"), requirement


def test_the_pinned_packages_answer_to_the_stated_ones() -> None:
    pinned = set(
        re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    )
    groups = PYPROJECT["dependency-groups"]["check"] + PYPROJECT["project"]["dependencies"]
    stated = {re.split(r"[<>=;\[ ]", requirement)[0].lower() for requirement in groups}
    assert stated <= pinned


def test_requirements_name_no_index() -> None:
    for file in ROOT.glob("requirements-*.txt"):
        assert "://" not in file.read_text(encoding="utf-8"), file.name


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("c-1-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", (2, 17)),
        ("c-1-cp311-abi3-manylinux_2_36_x86_64.whl", (2, 36)),
    ],
)
def test_the_wheel_check_reads_the_tag(name: str, floor: tuple[int, int]) -> None:
    assert check_wheel.tag_floor(name) == floor


def test_the_wheel_check_refuses_a_wheel_without_a_manylinux_tag() -> None:
    with pytest.raises(check_wheel.CheckError, match="no manylinux tag"):
        check_wheel.tag_floor("c-1-cp311-abi3-linux_x86_64.whl")


def test_the_wheel_check_reads_symbols_of_the_built_module() -> None:
    library = next(PACKAGE.glob("_core*.so"), None)
    if library is None:
        pytest.skip("the native module is not in the source tree")
    assert (2, 0) < check_wheel.needed_glibc(library) < (3, 0)


def make_wheel(folder: Path, names: dict[str, bytes], tag: str = "manylinux2014_x86_64") -> Path:
    wheel = folder / f"clustercore-0.1.0-cp311-abi3-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return wheel


def complete_wheel() -> dict[str, bytes]:
    info = "clustercore-0.1.0.dist-info"
    licenses = (f"{info}/licenses/{name}" for name in check_wheel.LICENSES)
    names = (*check_wheel.IN_WHEEL, *licenses, f"{info}/WHEEL", "clustercore/report/page.html")
    return dict.fromkeys(names, b"")


def test_the_wheel_check_passes_a_complete_wheel(tmp_path: Path) -> None:
    check_wheel.check_wheel_contents(make_wheel(tmp_path, complete_wheel()))


@pytest.mark.parametrize(
    "name",
    [
        "clustercore/_core.pyi",
        "clustercore/py.typed",
        "clustercore/sessions.parquet",
        "clustercore/presets.toml",
        "clustercore/report/page.html",
        "clustercore-0.1.0.dist-info/licenses/THIRD_PARTY_LICENSES.md",
    ],
)
def test_the_wheel_check_misses_each_file(tmp_path: Path, name: str) -> None:
    names = complete_wheel()
    del names[name]
    with pytest.raises(check_wheel.CheckError, match=name.removesuffix("page.html")):
        check_wheel.check_wheel_contents(make_wheel(tmp_path, names))


def test_the_wheel_check_refuses_foreign_files_and_folders_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(check_wheel.CheckError, match=r"tests/conftest\.py"):
        check_wheel.check_wheel_contents(
            make_wheel(tmp_path, complete_wheel() | {"tests/conftest.py": b""})
        )
    named = {"clustercore/presets.toml": f"built in {ROOT}/rust".encode()}
    with pytest.raises(check_wheel.CheckError, match="names a folder"):
        check_wheel.check_wheel_contents(make_wheel(tmp_path, complete_wheel() | named))


def test_the_wheel_check_refuses_a_tag_older_than_the_symbols(tmp_path: Path) -> None:
    library = next(PACKAGE.glob("_core*.so"), None)
    if library is None:
        pytest.skip("the native module is not in the source tree")
    wheel = make_wheel(tmp_path, {check_wheel.MODULE: library.read_bytes()}, "manylinux1_x86_64")
    with pytest.raises(check_wheel.CheckError, match="promises glibc"):
        check_wheel.check_platform(wheel, tmp_path)


def test_the_licence_list_refuses_an_unknown_licence() -> None:
    with pytest.raises(third_party_licenses.LicenseError, match=r"GPL-3\.0"):
        third_party_licenses.choose("GPL-3.0-only")


def test_the_licence_list_refuses_a_crate_without_a_text(tmp_path: Path) -> None:
    crate = third_party_licenses.Crate("bare", "1.0.0", "MIT", tmp_path)
    with pytest.raises(third_party_licenses.LicenseError, match="bare"):
        third_party_licenses.render([crate])


def test_crates_that_only_help_to_build_are_not_listed() -> None:
    def package(name: str, kind: str = "lib") -> dict[str, Any]:
        return {
            "id": name,
            "name": name,
            "version": "1.0.0",
            "license": "MIT",
            "source": None if name == third_party_licenses.MODULE_CRATE else "registry",
            "manifest_path": f"{name}/Cargo.toml",
            "targets": [{"kind": [kind]}],
        }

    def edge(name: str, kind: str | None) -> dict[str, Any]:
        return {"pkg": name, "dep_kinds": [{"kind": kind}]}

    module = third_party_licenses.MODULE_CRATE
    edges = [
        edge("linked", None),
        edge("cc", "build"),
        edge("proptest", "dev"),
        edge("macros", None),
    ]
    metadata = {
        "packages": [
            package(module),
            package("linked"),
            package("cc"),
            package("proptest"),
            package("macros", "proc-macro"),
        ],
        "resolve": {
            "nodes": [
                {"id": module, "deps": edges},
                *({"id": name, "deps": []} for name in ("linked", "cc", "proptest", "macros")),
            ]
        },
    }
    assert [crate.name for crate in third_party_licenses.linked_crates(metadata)] == ["linked"]


def test_what_is_required_fails_instead_of_being_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "REQUIRED", frozenset())
    with pytest.raises(pytest.skip.Exception, match="no data"):
        conftest.missing("data", "no data")
    monkeypatch.setattr(conftest, "REQUIRED", frozenset({"data"}))
    with pytest.raises(pytest.fail.Exception, match="no data"):
        conftest.missing("data", "no data")


def test_the_suite_is_strict() -> None:
    options = PYPROJECT["tool"]["pytest"]["ini_options"]
    assert options["filterwarnings"][0] == "error"
    assert options["xfail_strict"] is True
    assert options["timeout"] == 120


def test_make_help_names_every_task_of_the_readme() -> None:
    run = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    listed = set(re.findall(r"^  make (\S+)", run.stdout, re.MULTILINE))
    assert {"run", "test", "bench", "lint", "wheel", "ci", "help", "clean"} <= listed
