"""A child process and its directory: started, kept, stopped, and never left behind, also when we are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from proxy.store import child_server
from proxy.store.child_server import ChildServer, EmbeddedError
from tests.unit.store.engine import folder


class Sleeper(ChildServer):
    """A server of two lines: it makes a file, and that is all it does."""

    name = "Sleeper"
    wheel = "tests"
    program = "unit/store/sleeper.sh"
    stop_signal = "TERM"

    @property
    def ready(self) -> Path:
        """The file."""
        return self.directory / "ready"

    def _arguments(self) -> Sequence[str]:
        return [str(self.ready)]

    async def _set_up(self) -> None:
        self.ready.unlink(missing_ok=True)

    async def _answers(self) -> bool:
        return self.ready.exists()


def sleepers(directory: Path) -> list[psutil.Process]:
    """The processes that work for this directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(directory) in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid():
            found.append(process)
    return found


def killed(directory: Path) -> None:
    """All of them, as when memory runs out."""
    for process in sleepers(directory):
        with suppress(psutil.NoSuchProcess):
            process.kill()


async def gone(directory: Path) -> bool:
    """Whether they end within a while."""
    for _ in range(2000):
        if not sleepers(directory):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_server_runs_from_start_to_stop() -> None:
    """Afterwards no process is left, and it can be started again."""
    server = Sleeper(folder() / "state")
    for _ in range(2):
        await server.start()
        assert sleepers(server.directory)
        await server.stop()
        assert not sleepers(server.directory)


async def test_the_directory_and_the_password_are_private() -> None:
    """The password is made once and then kept."""
    server = Sleeper(folder() / "state")
    await server.start()
    await server.stop()
    first = server.password_file.read_text()
    assert len(first) > 40
    assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.directory.stat().st_mode) == stat.S_IMODE(server.sockets.stat().st_mode) == 0o700
    await server.start()
    await server.stop()
    assert server.password_file.read_text() == first


async def test_a_server_that_died_is_started_again() -> None:
    """One that lives is let alone."""
    server = Sleeper(folder() / "state")
    await server.start()
    try:
        before = {process.pid for process in sleepers(server.directory)}
        await server.keep()
        assert {process.pid for process in sleepers(server.directory)} == before
        killed(server.directory)
        while not sleepers(server.directory) or before & {process.pid for process in sleepers(server.directory)}:
            await server.keep()
            await asyncio.sleep(0.01)
    finally:
        await server.stop()


async def test_a_server_that_could_not_be_started_again_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is stopped."""
    server = Sleeper(folder() / "state")
    await server.start()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Sleeper, "wheel", "no_such_wheel")
            killed(server.directory)
            with pytest.raises(EmbeddedError):
                for _ in range(500):
                    await server.keep()
                    await asyncio.sleep(0.01)
        await server.keep()
        assert sleepers(server.directory)
    finally:
        await server.stop()
    await server.keep()
    assert not sleepers(server.directory)


async def test_a_server_ends_when_its_proxy_is_killed() -> None:
    """SIGKILL: nobody could have tidied up. The next start waits for the directory and gets it."""
    server = Sleeper(folder() / "state")
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom tests.unit.store.test_child_server import Sleeper\n"
        f"async def main():\n    await Sleeper(Path({str(server.directory)!r})).start()\n"
        "    print('up', flush=True)\n    await asyncio.sleep(60)\nasyncio.run(main())"
    )
    proxy = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert proxy.stdout is not None
    with proxy, proxy.stdout:
        assert proxy.stdout.readline() == b"up\n"
        proxy.send_signal(signal.SIGKILL)
    await server.start()
    await server.stop()
    assert await gone(server.directory)


async def test_a_server_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen one, after the deadline."""
    monkeypatch.setattr(child_server, "_STOP_S", 0.1)
    server = Sleeper(folder() / "state")
    await server.start()
    for process in sleepers(server.directory):
        process.suspend()
    await server.stop()
    assert await gone(server.directory)


async def test_a_directory_has_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second to come is refused after a while, and the first goes on."""
    monkeypatch.setattr(child_server, "_LOCK_S", 0.1)
    first = Sleeper(folder() / "state")
    await first.start()
    try:
        with pytest.raises(EmbeddedError, match="another process uses"):
            await Sleeper(first.directory).start()
        assert sleepers(first.directory)
    finally:
        await first.stop()


class Broken(Sleeper):
    """Ends at once."""

    def _arguments(self) -> Sequence[str]:
        return ["/nowhere/at/all"]


class Missing(Sleeper):
    """Of a wheel that nobody installed."""

    wheel = "no_such_wheel"


@pytest.mark.parametrize(
    ("kind", "words"), [(Broken, "does not start; see .*log"), (Missing, r"pip install .*\[embedded\]")]
)
async def test_a_server_that_cannot_start_says_why(kind: type[Sleeper], words: str) -> None:
    """And leaves no process and no lock behind."""
    server = kind(folder() / "state")
    for _ in range(2):
        with pytest.raises(EmbeddedError, match=words):
            await server.start()
    assert not sleepers(server.directory)


async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot use"):
        await Sleeper(tmp_path / "file" / "state").start()


def test_a_socket_whose_path_would_be_too_long_is_elsewhere(tmp_path: Path) -> None:
    """Short, and the same at every start."""
    deep = Sleeper(tmp_path / ("x" * 200))
    assert len(str(deep.sockets)) < 80
    assert deep.sockets == Sleeper(deep.directory).sockets != Sleeper(tmp_path).sockets


async def test_a_server_that_runs_is_joined() -> None:
    """Whoever joins knows its secret, starts nothing and ends nothing."""
    first, second = (Sleeper(folder() / "state") for _ in range(2))
    second.directory = first.directory
    await first.start()
    try:
        before = {process.pid for process in sleepers(first.directory)}
        await second.start_or_join()
        await second.keep()
        await second.stop()
        assert {process.pid for process in sleepers(first.directory)} == before
    finally:
        await first.stop()


async def test_a_server_that_does_not_run_is_started_for_the_time() -> None:
    """And ended by who started it; of many at a time one starts it, and the others join or come next."""
    directory = folder() / "state"

    async def visit() -> None:
        server = Sleeper(directory)
        await server.start_or_join()
        await server.stop()

    await asyncio.gather(*(visit() for _ in range(5)))
    assert not sleepers(directory)


async def test_a_server_that_is_frozen_cannot_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the directory, and does not answer: that is said after a while."""
    monkeypatch.setattr(child_server, "_READY_S", 0.1)
    first, second = (Sleeper(folder() / "state") for _ in range(2))
    second.directory = first.directory
    await first.start()
    try:
        first.ready.unlink()
        with pytest.raises(child_server.InUse, match="does not answer"):
            await second.start_or_join()
    finally:
        await first.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could take it")
async def test_root_takes_no_directory_of_another_user() -> None:
    """Its own server would be locked out."""
    server = Sleeper(folder() / "state")
    server.directory.mkdir()
    os.chown(server.directory, 12345, 12345)
    with pytest.raises(EmbeddedError):  # without the right to give it away, in a user namespace, it cannot be entered
        await server.start_or_join()
    assert server.directory.stat().st_uid == 12345
