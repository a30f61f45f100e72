"""The way out for lines of the log: collected, written by a thread, never a wait for whoever reads them.

Owns the thread, the bounds, and the count of what is dropped. It knows nothing of what a line says.

Lines are collected and handed, 256 KiB or 100 ms at a time, to a thread that writes them: a write to a pipe that nobody
reads blocks, and O_NONBLOCK is no way out because it belongs to the open file, which is shared with the parent's
terminal and with every process on the same pipe. What the thread cannot get rid of is dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
from queue import SimpleQueue
from typing import Final

#: Handed to the writer as soon as this many bytes are collected. Each hand-over costs a switch of threads, which on a
#: busy machine is dear: a line then costs 1.3 us with 64 KiB and 0.8 with 256 KiB (0.7 either way on an idle one).
_BATCH_BYTES: Final = 256 << 10
#: Bytes that may wait for a slow reader before lines are dropped.
_WAITING_BYTES: Final = 4 << 20
_LINE_END: Final = ord("\n")


class BatchedStream:
    """Collects lines and writes them to `fd` from a thread. Thread-safe; no call waits for the reader but `close`."""

    def __init__(self, fd: int, waiting_bytes: int = _WAITING_BYTES) -> None:
        self._fd = fd
        self._waiting_bytes = waiting_bytes
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        #: Bytes handed to the thread and not written yet.
        self._handed = 0
        self._queue: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._give_up = threading.Event()
        #: Ends the line of which only the beginning was taken, as the next one must not.
        self._torn = b""
        #: Lines lost because nobody read them in time, the reader is gone, or the disk is full.
        self.dropped = 0

    @property
    def terminal(self) -> bool:
        """Whether a person watches, who has not asked for plain text."""
        return os.isatty(self._fd) and "NO_COLOR" not in os.environ

    def write(self, line: bytes) -> None:
        """Take one line, its newline included."""
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
            if self._size >= _BATCH_BYTES:
                self._hand_over()

    def flush(self) -> None:
        """Hand what is collected to the thread: every 100 ms, after a warning, and at exit."""
        if self._lines:
            with self._lock:
                self._hand_over()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, for at most `timeout_s`; later lines are lost. Called again, it does not wait."""
        self.flush()
        if self._thread is not None and not self._give_up.is_set():
            self._queue.put(None)
            self._thread.join(timeout_s)
        self._give_up.set()

    def _hand_over(self) -> None:
        lines, size = self._lines, self._size
        self._lines, self._size = [], 0
        if self._give_up.is_set() or self._handed + size > self._waiting_bytes:
            self.dropped += len(lines)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        self._handed += size
        self._queue.put(lines)

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            batch = b"".join(lines)
            left = self._write_out(batch)
            with self._lock:
                self._handed -= len(batch)
                while left > 0:
                    left -= len(lines.pop())
                    self.dropped += 1

    def _write_out(self, batch: bytes) -> int:
        """How many bytes were not taken. An inherited descriptor may be non-blocking already: then wait for it here."""
        whole = self._torn + batch
        rest = memoryview(whole)
        while rest and not self._give_up.is_set():
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select((), (self._fd,), (), 0.5)
            except OSError:
                break
        taken = len(whole) - len(rest)
        if taken:
            self._torn = b"" if whole[taken - 1] == _LINE_END else b"\n"
        return min(len(rest), len(batch))
