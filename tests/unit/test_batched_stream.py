"""Lines leave in batches, and a reader that does not read costs lines but never time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest

from proxy.batched_stream import BatchedStream
from proxy.log import configure, logger
from tests.unit.test_log import Journal

pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "log")


class Pipe:
    """A pipe whose reader reads when told."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self) -> None:
        """From now on a write blocks until somebody reads."""
        os.write(self.writing, b"-" * 4096)

    def read_all(self) -> bytes:
        """What comes until the writing end is closed."""
        seen = b""
        while piece := os.read(self.reading, 65536):
            seen += piece
        return seen

    def close(self, *ends: int) -> None:
        """Close these ends, or both; the reading end first, so that a writer that is stuck comes free."""
        for end in ends or (self.reading, self.writing):
            if end in self._open:
                self._open.remove(end)
                os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Give the writer thread its turn; a second is far more than it needs."""
    turn = threading.Event()
    for _ in range(1000):
        if condition():
            return
        turn.wait(0.001)
    raise AssertionError("the writer thread did not get there")


def test_lines_wait_for_a_flush(pipe: Pipe) -> None:
    """Nothing is written line by line."""
    stream = BatchedStream(pipe.writing)
    os.set_blocking(pipe.reading, False)
    stream.write(b"one\n")
    stream.write(b"two\n")
    with pytest.raises(BlockingIOError):
        os.read(pipe.reading, 100)
    stream.close()
    assert os.read(pipe.reading, 100) == b"one\ntwo\n"


def test_a_warning_does_not_wait(pipe: Pipe) -> None:
    """Warnings and errors leave at once, behind what was collected before them."""
    stream = BatchedStream(pipe.writing)
    configure("info", "json", stream)
    logger("app").info("first")
    logger("app").warning("second")
    seen = b""
    while seen.count(b"\n") < 2:
        seen += os.read(pipe.reading, 4096)
    assert [orjson.loads(line)["event"] for line in seen.splitlines()] == ["first", "second"]
    stream.close()


def test_a_full_batch_does_not_wait(pipe: Pipe) -> None:
    """Memory is bounded without anyone calling flush."""
    stream = BatchedStream(pipe.writing)
    line = b"x" * 1023 + b"\n"
    for _ in range(256):
        stream.write(line)
    assert os.read(pipe.reading, 1024) == line
    reader = threading.Thread(target=pipe.read_all)
    reader.start()
    stream.close()
    pipe.close(pipe.writing)
    reader.join(5)
    assert stream.dropped == 0


def test_a_reader_that_stalls_costs_lines_but_never_time(pipe: Pipe) -> None:
    """Beyond what may wait, lines are dropped and counted; write and flush return although the pipe is full."""
    pipe.fill()
    stream = BatchedStream(pipe.writing, waiting_bytes=20_000)
    line = b"x" * 999 + b"\n"
    for _ in range(100):
        stream.write(line)
        stream.flush()
    assert stream.dropped == 80
    reader = threading.Thread(target=lambda: seen.append(pipe.read_all()))
    seen: list[bytes] = []
    reader.start()
    stream.close()
    pipe.close(pipe.writing)
    reader.join(5)
    assert seen[0][4096:] == line * 20


def test_writing_goes_on_when_the_reader_comes_back(pipe: Pipe) -> None:
    """A stall is no end: what comes after it is written again."""
    pipe.fill()
    stream = BatchedStream(pipe.writing, waiting_bytes=8000)
    for number in range(20):
        stream.write(b"%03d" % number + b"x" * 996 + b"\n")
        stream.flush()
    assert stream.dropped == 12
    seen = b""
    while len(seen) < 4096 + 8 * 1000:
        seen += os.read(pipe.reading, 4096)
    wait_for(lambda: stream._handed == 0)
    stream.write(b"back\n")
    stream.close()
    assert os.read(pipe.reading, 4096).endswith(b"back\n")


def test_a_reader_that_left_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    """A broken pipe is counted, not raised."""
    stream = BatchedStream(pipe.writing)
    pipe.close(pipe.reading)
    stream.write(b"one\n")
    stream.write(b"two\n")
    stream.close()
    assert stream.dropped == 2


def test_a_non_blocking_descriptor_is_waited_for(pipe: Pipe) -> None:
    """A parent may have made our standard output non-blocking: then nothing is lost all the same."""
    pipe.fill()
    os.set_blocking(pipe.writing, False)
    stream = BatchedStream(pipe.writing)
    lines = [b"%05d\n" % number for number in range(5000)]
    for line in lines:
        stream.write(line)
    stream.flush()
    wait_for(stream._queue.empty)
    seen = b""
    while len(seen) < 4096 + 30_000 and not stream.dropped:
        seen += os.read(pipe.reading, 4096)
    stream.close()
    assert seen[4096:] == b"".join(lines)
    assert stream.dropped == 0


#: A file that may have 20 bytes at first, then any number; prints how many lines were dropped.
SMALL_FILE: Final = """
import os, resource, sys, time
from proxy.batched_stream import BatchedStream

most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
stream = BatchedStream(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT))
for limit, numbers in ((20, range(5)), (20, range(5, 7)), (most, range(7, 9))):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    for number in numbers:
        stream.write(b'{"n":%d}\\n' % number)
    stream.flush()
    while stream._handed:
        time.sleep(0.001)
stream.close()
print(stream.dropped)
"""


def test_a_line_that_a_full_disk_cut_off_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    """And only those that are not there whole count as dropped."""
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILE, path], stdout=subprocess.PIPE, timeout=60, check=True, text=True
    )
    assert path.read_text().splitlines() == ['{"n":0}', '{"n":1}', '{"n"', '{"n":7}', '{"n":8}']
    assert done.stdout == "5\n"


def test_close_does_not_wait_for_ever(pipe: Pipe) -> None:
    """A reader that never reads delays the exit by the timeout at most, and once; later lines are counted as lost."""
    stream = BatchedStream(pipe.writing)
    stream.write(b"x" * 100_000 + b"\n")
    stream.close(timeout_s=0.01)
    stream.write(b"late\n")
    stream.flush()
    assert stream.dropped == 1
    began = time.monotonic()
    stream.close(timeout_s=30)  # at the exit of the interpreter
    assert time.monotonic() - began < 15


def test_lines_of_many_threads_are_whole(journal: Journal) -> None:
    """Anyone may log from any thread."""

    def work(name: int) -> None:
        for number in range(500):
            journal.stream.write(b'{"thread":%d,"number":%d}\n' % (name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = journal.lines()
    for name in range(4):
        assert [line["number"] for line in lines if line["thread"] == name] == list(range(500))
