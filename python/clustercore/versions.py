"""Which versions stand together: what a bug report needs and a manifest records."""

from __future__ import annotations

import sys

__all__ = ["show_versions", "versions"]

_DEPENDENCIES = (
    "numpy",
    "polars",
    "cyclopts",
    "rich",
    "plotly",
    "jinja2",
    "duckdb",
    "tzdata",
)
_OPTIONAL = ("databento", "databento-dbn", "apprise", "cryptography", "pandas", "pyarrow")


def versions() -> dict[str, str | None]:
    """Return the versions of clustercore, Python, the platform and the dependencies.

    Nothing is imported to find them: they come from the packages' metadata.

    Returns
    -------
    dict of str to (str or None)
        Versions by name, clustercore first; ``None`` for an optional package that is not installed.

    Examples
    --------
    >>> found = versions()
    >>> list(found)[:3]
    ['clustercore', 'python', 'platform']
    >>> found["numpy"] is None
    False
    """
    # Both take a while to import, and few sessions ask for versions.
    import importlib.metadata
    import platform

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "clustercore": version("clustercore"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in (*_DEPENDENCIES, *_OPTIONAL)},
    }


def show_versions() -> None:
    """Write a table of :func:`versions` to standard output.

    Examples
    --------
    >>> show_versions()
    clustercore        ...
    python             ...
    """
    found = versions()
    width = max(map(len, found))
    sys.stdout.writelines(
        f"{name:<{width}}  {'not installed' if version is None else version}\n"
        for name, version in found.items()
    )
