"""The command `audit export`: recorded calls as JSON Lines or CSV, to a file or standard output.

Owns the two forms, and that a file is there whole or not at all. Rows are written as they come; nothing is kept.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

from proxy.audit.columns import NAMES
from proxy.audit.copied import values
from proxy.audit.passages import head_to_json, to_json
from proxy.commands.audit import wanted_of
from proxy.commands.audit_source import Range, portions, reader_of
from proxy.commands.connection import carried_out
from proxy.commands.console import DONE, Misuse, counted, remark
from proxy.config.models import Config
from proxy.store.audit_copy import Reader
from proxy.store.audit_search import Wanted, narrowed

_BUFFER: Final = 1 << 20
_FILTERS: Final = ("principal", "action_name", "target", "server", "outcome", "risk", "kind", "request")
#: What spreadsheets take for the begin of a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class _Lines:
    """Rows of COPY, written one by one in another form."""

    def __init__(self, out: BinaryIO, form: Callable[[bytes], bytes]) -> None:
        self.written = 0
        self._out, self._form = out, form
        self._rest = b""

    def take(self, block: bytes) -> None:
        """Write the rows of a block, which ends anywhere. Raises Broken."""
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        form = self._form
        self.write(b"".join([form(line) for line in lines]))
        self.written += len(lines)

    def write(self, content: bytes) -> None:
        """Write this. Raises Broken."""
        try:
            self._out.write(content)
        except OSError as error:
            raise Broken(error) from None


class Broken(Exception):
    """The output takes no more."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def run(given: Namespace, config: Config) -> int:
    """Write what is asked for; returns the exit code. Raises Misuse."""
    wanted = wanted_of(given)
    if given.whole and (given.format != "jsonl" or any(getattr(given, name) is not None for name in _FILTERS)):
        raise Misuse("'--whole' is for JSON Lines, and goes with no filter but the tenant and the time")
    try:
        with _opened(given.output) as out:
            lines = _Lines(out, _csv_row if given.format == "csv" else _json_row)
            if given.format == "csv":
                lines.write(_csv((*NAMES, "chain")))
            heads = carried_out(_exported(config, wanted, lines, given.whole))
    except Broken as error:
        if isinstance(error.cause, BrokenPipeError):
            raise error.cause from None
        raise Misuse(f"the output cannot be written: {error}") from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise Misuse(f"the output cannot be written: {error}") from None
    remark(counted(lines.written, "row") + (f", {counted(heads, 'signed head')}" if given.whole else ""))
    return DONE


async def _exported(config: Config, wanted: Wanted, lines: _Lines, whole: bool) -> int:
    """Write rows; how many heads were written before them."""
    async with reader_of(config) as reader:
        tenant = await reader.tenant_id(wanted.tenant)
        wanted = replace(wanted, tenant=str(tenant) if tenant is not None else None)
        if not whole:
            await reader.rows(narrowed(wanted), lines.take, ordered=True)
            return 0
        return await _whole(reader, wanted, tenant, lines)


async def _whole(reader: Reader, wanted: Wanted, tenant: UUID | None, lines: _Lines) -> int:
    """Write heads, then rows. Of each segment the last head there is, which is from within one portion, or later."""
    count, first, last = 0, wanted.since, wanted.until
    async for since, until in portions(reader, Range(wanted.since, wanted.until, None), tenant):
        for kept in await reader.heads(since, until, tenant):
            if kept.last < until or until == wanted.until:
                lines.write(head_to_json(kept.head, kept.key_id, kept.signature) + b"\n")
                count, first, last = count + 1, min(first, kept.span[0]), max(last, kept.span[1])
    await reader.whole(wanted, (first, last), lines.take)
    return count


def _json_row(line: bytes) -> bytes:
    return to_json(line) + b"\n"


def _csv_row(line: bytes) -> bytes:
    return _csv([_cell(value) for value in values(line)])


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _csv(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """Where to write. A file is written aside, and has its name when all of it is on disk: what is no file, such as
    `/dev/stdout`, would be replaced by one. Raises OSError, Misuse."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not path.name or (path.exists() and not path.is_file()):
        raise Misuse("the output is to be a file; without '--output' it goes to standard output")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=_BUFFER) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
