"""Putting the page together and writing it, whole or not at all."""

from __future__ import annotations

import base64
import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clustercore.report.encode import pack, script_json
from clustercore.report.payload import build_payload
from clustercore.report.view import build_view, quality_view

if TYPE_CHECKING:
    from clustercore.result import BacktestResult

__all__ = ["write_report"]

_HERE: Final = Path(__file__).parent


def write_report(result: BacktestResult, path: str | Path) -> Path:
    """Write a result as one HTML file that opens with no network.

    Parameters
    ----------
    result : BacktestResult
        The result. Without its bars (after ``load_result``) the session chart shows levels and
        trades but no candles.
    path : str or Path
        The file; missing folders are made, an existing file is replaced.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> import tempfile
    >>> import clustercore as cc
    >>> from clustercore.backtest import backtest
    >>> result = backtest(cc.sample(sessions=10, seed=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(result, Path(folder) / "report.html").read_text("utf-8")
    >>> "SIMULATED" in page, "http-equiv" in page
    (True, True)
    """
    path = Path(path)
    page = render(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(page, "utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def render(result: BacktestResult) -> str:
    """Return the page as text."""
    # A third of a second that only a report needs.
    import jinja2

    # The check of the bars takes as long as everything else together, and needs none of it.
    with ThreadPoolExecutor(max_workers=1) as pool:
        quality = pool.submit(quality_view, result)
        payload = build_payload(result)
        levels = pack(script_json(payload.levels).encode("ascii"))
        view = build_view(result, payload.charted, payload.session_count)
        view["quality"] = quality.result()
    script = (_HERE / "report.js").read_text("utf-8")
    plotly, plotly_hash = _plotly()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        view=view,
        policy=_policy(_hash(script), plotly_hash),
        css=(_HERE / "report.css").read_text("utf-8"),
        script=script,
        data=script_json(payload.data),
        levels=levels,
        bars=payload.bars,
        plotly=plotly,
    )


def _policy(*script_hashes: str) -> str:
    """Return a policy under which nothing is fetched and only the page's own scripts run.

    Styles are open because the chart library writes some as it draws.
    """
    scripts = " ".join(f"'sha256-{value}'" for value in script_hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


@functools.cache
def _plotly() -> tuple[str, str]:
    """Return the chart library, packed, and the hash that lets the page run it."""
    import importlib.resources

    source = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    script = source.read_text("utf-8")
    return pack(script.encode("utf-8")), _hash(script)
