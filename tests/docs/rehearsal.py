"""The commands of a document that do not end by themselves: a gateway, and live beside it.

They run in the background while the commands after them run. The gateway gets a free port and more
speed than a reader would want, and live commands that would ask the vendor ask the gateway.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

# Where the documents say that the gateway listens.
ADDRESS = "127.0.0.1:13000"
# Commands that reach for the vendor unless told otherwise.
ASKS_THE_VENDOR = ("clustercore live", "clustercore doctor")
SPEED = "6000"


def free_ports() -> int:
    """Return a port that is free, as is the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class Rehearsal:
    """What runs in the background of a document.

    Parameters
    ----------
    folder : Path
        The working directory.
    environ : dict of str to str
        The environment of every command.
    speed : str
        Speed of the gateway in place of the document's; None keeps that.
    """

    def __init__(self, folder: Path, environ: dict[str, str], speed: str | None = SPEED) -> None:
        self.folder = folder
        self.environ = environ
        self._speed = speed
        self._port = 0
        self._gateway: subprocess.Popen[bytes] | None = None
        self._live: subprocess.Popen[bytes] | None = None
        self._closes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in (self._live, self._gateway):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(20)

    def takes(self, words: list[str]) -> bool:
        """Start a command that does not end by itself, or wait for one that was told to."""
        if words[:2] == ["clustercore", "gateway"]:
            self._start_gateway(words)
        elif words[:2] == ["clustercore", "live"]:
            self._start_live(words)
        elif words[:2] == ["clustercore", "stop"]:
            subprocess.run(words, cwd=self.folder, env=self.environ, check=True)
            self.wait_for_live()
        else:
            return False
        return True

    def adapted(self, command: str) -> str:
        """Return a command with the address of the gateway that runs."""
        if command.startswith(ASKS_THE_VENDOR) and "--gateway" not in command:
            command += f" --gateway {ADDRESS}"
        return command.replace(ADDRESS, f"127.0.0.1:{self._port}")

    def place_of(self, command: str) -> Path:
        """Return where a command runs: a service is refused in a folder of temporary files."""
        return Path.home() if command.startswith("clustercore service") else self.folder

    def wait_for_live(self, seconds: float = 60.0) -> str:
        """Wait for the live process to end in order, and return what it said."""
        assert self._live is not None, "nothing runs"
        assert self._live.wait(seconds) == 0, self._said("live")
        self._live = None
        return self._said("live")

    def _start_gateway(self, words: list[str]) -> None:
        self.__exit__(None, None, None)
        self._closes = "close" in words
        if self._speed is not None and "--speed" in words:
            words[words.index("--speed") + 1] = self._speed
        self._port = free_ports()
        self._gateway = self._start("gateway", [*words, "--port", str(self._port)])
        self._wait(self._gateway, "gateway", "Start beside it")

    def _start_live(self, words: list[str]) -> None:
        """Start it, and wait: for its end beside a gateway that ends, else until it is LIVE."""
        if self._live is not None:
            self.wait_for_live()
        self._live = self._start("live", self.adapted(" ".join(words)).split())
        if self._closes and "--gateway" in words:
            self.wait_for_live()
        else:
            self._wait(self._live, "live", "LIVE:")

    def _start(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.said").open("wb") as said:
            return subprocess.Popen(
                words, cwd=self.folder, env=self.environ, stdout=said, stderr=subprocess.STDOUT
            )

    def _said(self, name: str) -> str:
        return (self.folder / f"{name}.said").read_text("utf-8")

    def _wait(self, process: subprocess.Popen[bytes], name: str, text: str) -> None:
        until = time.monotonic() + 60
        while not re.search(text, self._said(name)):
            assert process.poll() is None, f"{name} ended: {self._said(name)}"
            assert time.monotonic() < until, f"{name} did not say {text}: {self._said(name)}"
            time.sleep(0.1)  # noqa: TID251 -- waits for another process
