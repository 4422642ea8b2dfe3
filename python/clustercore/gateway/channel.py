"""A client's socket: what is written to it, how, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Any

__all__ = ["Channel"]

_WRITE_BUFFER = 1 << 18
_SEND_BUFFER = 1 << 18
_FLUSH_S = 5.0
_FLUSH_STEP_S = 0.001


class Channel:
    """A socket to write to.

    Parameters
    ----------
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
        The socket.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.closed = False
        self._writer = writer
        self._compressor: Any = None
        self._singly = 0
        self._order = asyncio.Lock()
        writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        raw = self._socket()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Small: what waits in the machine's buffers is market time that the client has not seen.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def _socket(self) -> socket.socket:
        found: socket.socket = self._writer.get_extra_info("socket")
        return found

    async def line(self) -> bytes:
        """Return the next line of the client."""
        return await self.reader.readuntil(b"\n")

    def compress(self) -> None:
        """Write one zstd stream from here on, flushed after every write."""
        import zstandard

        self._compressor = zstandard.ZstdCompressor().compressobj()

    def go_singly(self, count: int) -> None:
        """Write the next bytes one at a time."""
        self._singly = count

    def write(self, content: bytes) -> None:
        """Write without waiting; a client that has gone gets nothing."""
        if self.closed or self._writer.transport.is_closing():
            return
        if self._compressor is not None:
            import zstandard

            content = self._compressor.compress(content)
            content += self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        self._writer.write(content)

    async def send(self, content: bytes) -> None:
        """Write after what others have begun to write."""
        async with self._order:
            single, rest = content[: self._singly], content[self._singly :]
            self._singly -= len(single)
            for place in range(len(single)):
                self.write(single[place : place + 1])
                await asyncio.sleep(0)
            if rest:
                self.write(rest)

    @property
    def waiting(self) -> int:
        """Bytes that the machine's buffers have not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until the machine's buffers take more; a client that went is not waited for."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def unsent(self) -> int:
        """Return how many bytes the client's side has not got yet."""
        if self.closed or self._writer.transport.is_closing():
            return 0
        answer = fcntl.ioctl(self._socket().fileno(), termios.TIOCOUTQ, b"\0" * 4)
        (queued,) = struct.unpack("i", answer)
        return int(queued) + self.waiting

    async def flush(self) -> None:
        """Wait until the client's side has got everything; one that does not read is given up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FLUSH_S
        while self.unsent() and loop.time() < deadline:  # noqa: ASYNC110 -- nobody says when
            await asyncio.sleep(_FLUSH_STEP_S)

    def close(self, *, reset: bool = False) -> None:
        """Close with FIN once everything is written, or with RST at once."""
        if self.closed:
            return
        self.closed = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._writer.transport.abort()
        else:
            self._writer.close()

    def abort(self) -> None:
        """Close without writing what still waits."""
        self.closed = True
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the socket is closed."""
        with contextlib.suppress(ConnectionError, OSError):
            await self._writer.wait_closed()
