"""Live: the same engine on a stream. Inputs are written down before what they caused is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clustercore.live.runner import LiveRunner
    from clustercore.live.settings import LiveSettings

__all__ = ["LiveRunner", "LiveSettings"]

_WHERE = {"LiveRunner": "runner", "LiveSettings": "settings"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- the classes, loaded when they are asked for
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
