"""The servers in an MCP client's settings, read: Claude Desktop, Claude Code, Cursor, VS Code.

Owns their forms, which `client_config.py` writes: where the servers stand in a file, what an entry may say, how
variables are named, JSON with comments. Pure: text in, entries out; no file, no row. Whether a server can be registered
is checked later; what cannot even be one (it runs a command, it names what only an editor knows) has its reason.

Sources, read in November 2026: the MCP pages of Claude Code, VS Code ("MCP configuration reference") and Cursor, the
README of `mcp-remote`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

#: A string, or what JSON does not know: comments, and a comma before the end of a list or object.
_STRING: Final = r'"(?:[^"\\]|\\.)*+"'
_COMMENTS: Final = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMAS: Final = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)

_TRANSPORTS: Final = {
    "http": "streamable_http",
    "streamablehttp": "streamable_http",
    "sse": "sse",
    "ws": "websocket",
    "websocket": "websocket",
}
#: A bridge from standard input and output to a URL: the entry is a remote server after all.
_BRIDGE: Final = re.compile(r"mcp-remote(?:@[0-9A-Za-z.^~\-]+)?")
#: `${...}` with its content, or one that does not end.
_VARIABLE: Final = re.compile(r"\$\{(?:([^}]*)\})?")
_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,63})(:-[^}]*)?")
#: What an editor replaces by something of the machine that it runs on.
_OF_EDITORS: Final = frozenset(
    ("workspaceFolder", "workspaceFolderBasename", "userHome", "pathSeparator", "cwd", "CLAUDE_PLUGIN_ROOT")
)
_SECRET_HEADER: Final = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)
_LONGEST: Final = 63

STDIO: Final = "it runs a command on the client's machine (stdio); only servers with a URL can be behind the proxy"


@dataclass(frozen=True, slots=True)
class Entry:
    """One server of the file."""

    written: str
    """Its name there."""
    place: str
    """Where it stands: `mcpServers`, or that of a project."""
    name: str = ""
    """Its name as a server of ours; '' when it cannot be one."""
    url: str = field(default="", repr=False)
    transport: str = "streamable_http"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    is_enabled: bool = True
    problem: str = ""
    """Why it cannot be imported; '' when it can."""
    notes: tuple[str, ...] = ()
    """What was changed, and what is to be done."""


class _Unfit(Exception):
    """The entry cannot be imported; the text says why and shows no value."""


def read(text: str, prefix: str = "") -> list[Entry]:
    """Every server in a file, in its order. `prefix`: what names of variables begin with here; it is put before those
    that do not. Raises ValueError for what is no such file."""
    taken: dict[str, Entry] = {}
    entries = [
        _named(_entry(written, place, value, prefix), taken)
        for place, servers in _tables(_parsed(text))
        for written, value in servers.items()
    ]
    if not entries:
        raise ValueError("there is no server in this file; looked for 'mcpServers' and 'servers'")
    return entries


def variables(value: str) -> list[str]:
    """Names of the variables in a header's value, in our form: `${NAME}` and `${NAME:-default}`."""
    found = (_NAME.fullmatch(match[1] or "") for match in _VARIABLE.finditer(value.replace("$${", "")))
    return [match[1] for match in found if match is not None]


def _parsed(text: str) -> object:
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            plain = _LAST_COMMAS.sub(r"\1", _COMMENTS.sub(lambda match: match[1] or " ", text))
            return json.loads(plain)
    except (ValueError, RecursionError):
        raise ValueError("the file is not JSON, also not with comments") from None


def _tables(document: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects whose keys are names of servers, each with its place."""
    if not isinstance(document, dict):
        return
    of_editor = document.get("mcp")
    projects = document.get("projects")
    places = [("mcpServers", document.get("mcpServers")), ("servers", document.get("servers"))]
    if isinstance(of_editor, dict):
        places.append(("mcp.servers", of_editor.get("servers")))
    if isinstance(projects, dict):
        places += [(f"project {path}", project.get("mcpServers")) for path, project in projects.items()
                   if isinstance(project, dict)]  # fmt: skip
    yield from ((place, table) for place, table in places if isinstance(table, dict))


def _entry(written: str, place: str, value: object, prefix: str) -> Entry:
    entry = Entry(written, place)
    try:
        if not isinstance(value, dict):
            raise _Unfit("it is not an object")
        url, transport, headers, notes = _bridged(value) if "url" not in value else _direct(value)
        if "${" in url:
            raise _Unfit("its URL holds a variable; add it with 'servers add' and the URL written out")
        mapped = {}
        for name, text in headers.items():
            mapped[name], more = _mapped(name, text, prefix)
            notes += more
        if value.get("headersHelper") is not None:
            notes.append("its headersHelper is a command, which is not imported")
        disabled = value.get("disabled") is True
        if disabled:
            notes.append("disabled, as it is there")
        name = _valid(written)
        return replace(
            entry, name=name, url=url, transport=transport, headers=mapped, is_enabled=not disabled, notes=tuple(notes)
        )
    except _Unfit as unfit:
        return replace(entry, problem=str(unfit))


def _direct(value: dict[str, Any]) -> tuple[str, str, dict[str, str], list[str]]:
    """URL, transport, headers and notes of an entry with a URL."""
    url, kind = value["url"], value.get("type", value.get("transport"))
    if not isinstance(url, str):
        raise _Unfit("its URL is not text")
    headers = value.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise _Unfit("its headers are not an object of texts")
    if kind is None:
        return url, *_guessed(url, headers)
    known = re.sub(r"[-_ ]", "", kind).lower() if isinstance(kind, str) else ""
    if known == "stdio":
        raise _Unfit(STDIO)
    if known not in _TRANSPORTS:
        raise _Unfit("its type is none of http, sse and ws")
    return url, _TRANSPORTS[known], dict(headers), []


def _guessed(url: str, headers: dict[str, str]) -> tuple[str, dict[str, str], list[str]]:
    """The transport of an entry that does not name one: clients try, we go by the URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _Unfit("its URL cannot be read") from None
    if parts.scheme in ("ws", "wss"):
        return "websocket", dict(headers), ["transport websocket, by its URL"]
    if parts.path.rstrip("/").endswith("/sse"):
        return "sse", dict(headers), ["transport sse, by its URL"]
    return "streamable_http", dict(headers), []


def _bridged(value: dict[str, Any]) -> tuple[str, str, dict[str, str], list[str]]:
    """The same of an entry that runs `mcp-remote`."""
    if "command" not in value:
        raise _Unfit("it has neither a URL nor a command")
    words = [value["command"], *(value["args"] if isinstance(value.get("args"), list) else [])]
    texts = [word for word in words if isinstance(word, str)]
    at = next((number for number, text in enumerate(texts) if _BRIDGE.fullmatch(text)), None)
    rest = texts[at + 1 :] if at is not None else []
    url = next((text for text in rest if text.startswith(("http://", "https://"))), None)
    if url is None:
        raise _Unfit(STDIO)
    headers: dict[str, str] = {}
    transport = "streamable_http"
    for word, following in pairwise(rest):
        if word == "--header":
            name, _, text = following.partition(":")
            headers[name.strip()] = text.strip()
        elif word == "--transport" and following.startswith("sse"):
            transport = "sse"
    return url, transport, headers, ["reached without mcp-remote"]


def _mapped(header: str, text: str, prefix: str) -> tuple[str, list[str]]:
    """A header's value with its variables as ours, and notes about it."""
    if "$${" in text or text.startswith("file:"):
        raise _Unfit("a header holds '$${' or begins with 'file:', which means something else here")
    needed: list[str] = []

    def ours(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$${"  # one that does not end is text
        name, default = _variable(match[1])
        if not name.startswith(prefix):
            name = f"{prefix}{name}"
        needed.append(name)
        return f"${{{name}{default}}}"

    value = _VARIABLE.sub(ours, text.strip())
    if needed:
        return value, [f"set {name} for the proxy" for name in dict.fromkeys(needed)]
    if _SECRET_HEADER.search(header) and value:
        shown = header if re.fullmatch(r"[A-Za-z0-9\-]{1,40}", header) else "a header"
        return value, [f"the value of {shown} is kept as it is written; better name a variable"]
    return value, []


def _variable(content: str) -> tuple[str, str]:
    """Name and default of what stands between `${` and `}`."""
    if content.startswith("input:"):
        content = re.sub(r"[^A-Za-z0-9]+", "_", content.removeprefix("input:")).upper()
    match = _NAME.fullmatch(content.removeprefix("env:"))
    if match is None or match[1] in _OF_EDITORS:
        raise _Unfit("a header names what only the client's machine knows")
    return match[1], match[2] or ""


def _valid(written: str) -> str:
    """A name of ours that is as like as possible."""
    name = re.sub(r"[^a-z0-9_.\-]+", "-", written.lower())[:_LONGEST].strip("-_.")
    if not name:
        raise _Unfit("its name has no letter or digit")
    return name


def _named(entry: Entry, taken: dict[str, Entry]) -> Entry:
    """The entry with a name that none of `taken` has, or with the reason why it is superfluous."""
    name, number = entry.name, 1
    while name in taken:
        if _same(taken[name], entry):
            return replace(entry, name="", problem=f"it is the same as {name}, which stands before it", notes=())
        number += 1
        name = f"{entry.name[: _LONGEST - 5]}-{number}"
    named = replace(entry, name=name)
    if name:
        taken[name] = named
    return named


def _same(one: Entry, other: Entry) -> bool:
    return (one.url, one.transport, one.headers) == (other.url, other.transport, other.headers)
