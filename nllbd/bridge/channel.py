"""The parent's end of the socket to the engine process: frames out without ever blocking, messages in to the last one.

Not an asyncio transport, for one reason: when the child dies while we write, a transport drops what the child had
still said, and the last report is the one that names the suspects. Knows frames, not what they mean.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from nllbd.bridge.codec import CodecError, FromEngine, ToEngine, client_decoder, encode

_READ_BYTES = 1 << 18
SOCKET_BUFFER_BYTES = 1 << 18


class Channel:
    """Owns `sock` (a connected stream socket).

    Args:
        on_message: called for each message, on the loop.
        on_drained: called when what was sent has left for the kernel: room for the next frame.
        on_closed: called once when the child's end is gone and everything it said has been delivered.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[FromEngine], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_message = on_message
        self._on_drained = on_drained
        self._on_closed = on_closed
        self._decoder = client_decoder()
        self._inbox = memoryview(bytearray(_READ_BYTES))  # one for all reads: a new one each costs more than the read
        self._out = memoryview(b"")
        self._open = True
        self._writing = False
        self._broken = False
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def can_send(self) -> bool:
        """Nothing of ours waits any more: one frame may be sent. The window is that frame and the socket's buffer."""
        return self._open and not self._broken and not self._out

    def send(self, message: ToEngine) -> None:
        """Send one message; only when `can_send`. Raises what `encode` raises."""
        self._out = memoryview(encode(message))
        self._writable()

    def close(self) -> None:
        """Give up the socket; no callback comes after this."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _writable(self) -> None:
        had_waited = self._writing
        try:
            while self._out:
                self._out = self._out[self._sock.send(self._out) :]
        except (BlockingIOError, InterruptedError):
            self._watch_writable(True)
            return
        except OSError:  # the child is dead; the reader finds out, after its last words
            self._broken, self._out = True, memoryview(b"")
        self._watch_writable(False)
        if had_waited and not self._broken:
            self._on_drained()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._sock.fileno())
        self._writing = wanted

    def _readable(self) -> None:
        try:
            size = self._sock.recv_into(self._inbox)
            messages = self._decoder.feed(self._inbox[:size])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(f"the connection broke: {error.strerror}")
            return
        except CodecError as error:
            self._end(f"the engine process sent garbage: {error}")
            return
        if not size:
            self._end("the connection ended")
            return
        for message in messages:
            if self._open:
                self._on_message(message)

    def _end(self, reason: str) -> None:
        if self._open:
            self.close()
            self._on_closed(reason)
