"""Notices that the configuration changed, on disk or by signal, and hands the new one over.

Owns the comparison: by content of the configuration file and of the secret and TLS files it names, so that renaming
over, swapping a symlinked directory (Kubernetes) and rewriting within one tick of the clock are all seen, and touching
is not. It starts no task and knows neither YAML nor what a snapshot is.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from proxy.config.files import CONFIG_BYTES, read_bounded
from proxy.config.models import Config
from proxy.config.problems import ConfigError

Outcome = Config | ConfigError


class ConfigWatch:
    """Watches one configuration file.

    `step` and `reload` do everything where they are called; `step_aside` reads in a thread, for configurations so large
    that reading them would hold up requests.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[], Config],
        apply: Callable[[Config], object],
        report: Callable[[ConfigError], object],
        files: Iterable[str] = (),
        turn: asyncio.Lock | None = None,
    ) -> None:
        """What is on disk now counts as in force; `files` are the `Config.files` of it. `turn` is held from loading to
        applying by those who do so aside.

        `load` raises ConfigError. `apply` and `report` are called with what came of it, one of them, once.
        """
        self._path = path
        self._load = load
        self._apply = apply
        self._report = report
        self._files = tuple(files)
        self._known = self._fingerprint()
        self._changing: bytes | None = None
        self._turn = turn or asyncio.Lock()

    def step(self) -> None:
        """Look at the files; load them when they have changed and stood still since the last look."""
        self._settle(self._look())

    def reload(self) -> None:
        """Load the files whether they have changed or not: SIGHUP."""
        self._settle(self._load_now())

    async def step_aside(self) -> None:
        """`step`, reading in a thread."""
        async with self._turn:
            self._settle(await asyncio.to_thread(self._look))

    async def reload_aside(self) -> None:
        """`reload`, reading in a thread."""
        async with self._turn:
            self._settle(await asyncio.to_thread(self._load_now))

    def _look(self) -> Outcome | None:
        """What came of a changed file; None when there is nothing new.

        A file is loaded only when two looks in a row find the same: half of a file that is being written can be a
        valid configuration with servers missing.
        """
        found = self._fingerprint()
        if found == self._known:
            self._changing = None
        elif found == self._changing:
            return self._load_now()
        else:
            self._changing = found
        return None

    def _load_now(self) -> Outcome:
        self._changing = None
        self._known = self._fingerprint()  # before loading: what changes meanwhile is seen by the next look
        outcome: Outcome
        try:
            outcome = self._load()
        except ConfigError as error:
            outcome = error
        if outcome.files != self._files:
            self._files = outcome.files
            self._known = self._fingerprint()
        return outcome

    def _settle(self, outcome: Outcome | None) -> None:
        if isinstance(outcome, ConfigError):
            self._report(outcome)
        elif outcome is not None:
            self._apply(outcome)

    def _fingerprint(self) -> bytes:
        """A digest of all contents; of a file that cannot be read, of the reason."""
        digest = hashlib.blake2b(digest_size=16)
        for path in (self._path, *map(Path, self._files)):
            digest.update(_digest(path))
        return digest.digest()


def _digest(path: Path) -> bytes:
    try:
        content = read_bounded(path, CONFIG_BYTES)
    except ValueError as error:
        content = str(error).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
