"""The shape of `proxy/`, checked on its syntax trees: sizes, import direction, one door per library, names, tests.

Each rule collects every place that breaks it, so that one run shows all of them. Cyclomatic complexity is ruff's (C90).
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "proxy"

MAX_FILE_LINES: Final = 300
MAX_FUNCTION_LINES: Final = 60
MAX_MEDIAN_FUNCTION_LINES: Final = 10
MAX_NESTING: Final = 4
MAX_PARAMETERS: Final = 6
DOCSTRING_SHARE: Final = (0.10, 0.20)

# --- who may know whom ----------------------------------------------------------------------------------------------

#: First part of a module's name below `proxy` -> the parts that it may import, besides itself.
#: cli -> app -> {admin, background} -> {dataplane, store, spool} -> identity -> {mcp, config, errors, metrics, log}
FLOOR: Final = {"audit", "batched_stream", "identity", "limits", "mcp", "config", "errors", "metrics", "log"}
MAY_IMPORT: Final = {
    "__main__": {"cli"},
    "cli": {"serving", "client_config", "commands"} | FLOOR,
    "commands": {"background", "client_config", "dataplane", "spool", "store"} | FLOOR,
    "serving": {"app", "store", "tracing"} | FLOOR,
    "client_config": FLOOR,
    "app": {"admin", "backend", "background", "drain", "dataplane", "protection", "record", "store", "spool"} | FLOOR,
    "protection": {"background", "dataplane", "protection_metrics", "store"} | FLOOR,
    "record_metrics": {"backend_metrics", "spool"} | FLOOR,
    "record": {"backend", "background", "record_metrics", "dataplane", "spool", "store", "tracing"} | FLOOR,
    "tracing": {"dataplane"} | FLOOR,
    "protection_metrics": {"backend_metrics", "background", "dataplane"} | FLOOR,
    "backend_metrics": {"background", "dataplane", "store"} | FLOOR,
    "backend": {"backend_metrics", "background", "dataplane", "store"} | FLOOR,
    "drain": {"admin", "dataplane"} | FLOOR,
    "admin": {"dataplane", "store", "spool"} | FLOOR,
    "background": {"dataplane", "store", "spool"} | FLOOR,
    "dataplane": FLOOR,
    "store": FLOOR,
    "spool": FLOOR,
    "audit": {"identity", "mcp", "errors"},
    "identity": {"mcp", "errors"},
    "limits": {"identity", "mcp", "errors"},
    "mcp": {"errors"},
    "config": {"errors"},
    "metrics": {"errors"},
    "log": {"batched_stream", "errors"},
    "batched_stream": set[str](),
    "errors": set[str](),
}

#: Third-party library -> the files and folders of `proxy/` that may import it: replacing one is a change in one place.
DOORS: Final = {
    "aiohttp": ("admin/", "dataplane/client.py", "dataplane/connector.py", "dataplane/lane_aiohttp.py"),
    "asyncpg": ("store/",),
    "cryptography": ("audit/signing.py", "dataplane/affinity.py", "store/registry_file.py"),
    "ddsketch": ("background/traffic.py",),
    "hiredis": ("dataplane/redis_lane.py",),
    "multidict": ("dataplane/connector.py",),  # a type of aiohttp's, like yarl
    "opentelemetry": ("tracing.py",),
    "orjson": ("",),
    "prometheus_client": ("admin/", "metrics.py"),
    "pybreaker": ("dataplane/breaker.py",),
    "pydantic": ("admin/", "config/"),
    "pydantic_core": ("config/",),
    "redis": ("dataplane/ratelimit.py", "dataplane/redis_link.py"),
    "structlog": ("log.py",),
    "uvloop": ("serving.py",),
    "yaml": ("config/loader.py",),
    "yarl": ("dataplane/client.py", "dataplane/connector.py"),
}

# --- names ----------------------------------------------------------------------------------------------------------

#: Words that say nothing about what a thing is for.
EMPTY_WORDS: Final = {"manager", "managers", "helper", "helpers", "util", "utils", "service", "services"}
EMPTY_VERBS: Final = ("process_", "handle_")
#: Names that a library asks for, with who asks.
GIVEN_NAMES: Final = {
    ("admin/server.py", "handle_error"): "a method of aiohttp's RequestHandler",
}

# --- exceptions, each with its reason -------------------------------------------------------------------------------

#: The last line of defence: a bug becomes a 500, a failing loop is logged and goes on, a record never raises.
BROAD_EXCEPTS: Final = {"dataplane/handler.py": 1, "background/supervisor.py": 1, "dataplane/recorder.py": 1}

#: Modules without a unit test of their own.
TESTED_ELSEWHERE: Final = {
    "__main__.py": "two lines; every acceptance test runs it",
    "app.py": "the composition root: acceptance tests start it as a process",
    "serving.py": "starts and ends a process: acceptance tests run it",
    "record.py": "a part of the composition root: tests/integration starts it with the whole proxy",
    "backend.py": "the other half of the composition root: tests/integration starts it with the whole proxy",
    "protection.py": "a part of the composition root: tests/integration starts it with the whole proxy",
    "drain.py": "waits for connections to end: tests/integration/test_drain.py drives it over sockets",
    "dataplane/context.py": "fields only: every test of a phase makes one",
    "dataplane/gate.py": "owns a connection: tests/integration drives it over sockets",
    "dataplane/handler.py": "the order of the phases: tests/integration drives it over sockets",
    "dataplane/lane_aiohttp.py": "the lane behind the gate: tests/integration drives it over sockets",
    "dataplane/listener.py": "owns the gates: tests/integration drives it over sockets",
    "dataplane/parts.py": "fields without logic",
}


@dataclass(frozen=True)
class Module:
    """One source file: where it is, what it says, and its syntax tree."""

    path: str
    """Below `proxy/`, such as `mcp/envelope.py`."""
    text: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """First part of its name below `proxy`: `mcp`, `cli`; '' for the package itself."""
        first = self.path.split("/")[0].removesuffix(".py")
        return "" if first == "__init__" else first

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Functions and methods, nested ones included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, absolute dotted name) of every import, those for type checkers included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno} imports relatively"
                # `from proxy import log` names a module, `from proxy.log import logger` does so without its last part
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}" if node.module == "proxy" else str(node.module)


@cache
def modules() -> tuple[Module, ...]:
    """Every source file of the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return tuple(
        Module(str(path.relative_to(PACKAGE)), path.read_text(), ast.parse(path.read_text())) for path in paths
    )


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From `def` to the last line, docstring included, decorators not."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def nesting(node: ast.AST, depth: int = 0) -> int:
    """Deepest block inside a function; `elif` is no deeper than its `if`, a nested function starts anew."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        deeper = isinstance(child, BLOCKS) and not is_elif(node, child)
        deepest = max(deepest, nesting(child, depth + deeper))
    return deepest


BLOCKS: Final = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def is_elif(parent: ast.AST, child: ast.AST) -> bool:
    """Whether `child` is the only statement of the parent's `else`, and an `if`."""
    return isinstance(parent, ast.If) and isinstance(child, ast.If) and parent.orelse == [child]


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Number of parameters without `self` and `cls`."""
    arguments = node.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return (
        len(named) - (named[:1] in (["self"], ["cls"])) + (arguments.vararg is not None) + (arguments.kwarg is not None)
    )


def words(name: str) -> list[str]:
    """The lower-case words of a snake_case or CamelCase name."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def is_door(path: str, doors: tuple[str, ...]) -> bool:
    """Whether a file is one of the doors, or in a folder that is one."""
    return any(path == door or (path.startswith(door) and door[-1:] in ("/", "")) for door in doors)


# --- the rules: each yields the places that break it ----------------------------------------------------------------


def long_files() -> Iterator[str]:
    """Files of more lines than one sitting can read."""
    for module in modules():
        count = module.text.count("\n")
        if count > MAX_FILE_LINES:
            yield f"{module.path}: {count} lines, at most {MAX_FILE_LINES}"


def big_functions() -> Iterator[str]:
    """Functions that are too long, too deep or take too much."""
    for module in modules():
        for function in module.functions():
            place = f"{module.path}:{function.lineno} {function.name}"
            if lines_of(function) > MAX_FUNCTION_LINES:
                yield f"{place}: {lines_of(function)} lines, at most {MAX_FUNCTION_LINES}"
            if nesting(function) > MAX_NESTING:
                yield f"{place}: nested {nesting(function)} deep, at most {MAX_NESTING}"
            if parameters(function) > MAX_PARAMETERS:
                yield f"{place}: {parameters(function)} parameters, at most {MAX_PARAMETERS}"


def long_median_function() -> Iterator[str]:
    """The typical function does not fit one glance."""
    median = statistics.median(lines_of(function) for module in modules() for function in module.functions())
    if median > MAX_MEDIAN_FUNCTION_LINES:
        yield f"median function: {median} lines, at most {MAX_MEDIAN_FUNCTION_LINES}"


def silent_modules() -> Iterator[str]:
    """Modules that do not say what they own."""
    for module in modules():
        if ast.get_docstring(module.tree) is None:
            yield f"{module.path}: no module docstring"


def wrong_share_of_docstrings() -> Iterator[str]:
    """Too little or too much prose in all."""
    documented = total = 0
    for module in modules():
        total += module.text.count("\n")
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                documented += (node.end_lineno or node.lineno) - node.lineno + 1
    low, high = DOCSTRING_SHARE
    if not low <= documented / total <= high:
        yield f"docstrings are {documented / total:.1%} of all lines, not {low:.0%} to {high:.0%}"


def broad_excepts() -> Iterator[str]:
    """`except Exception`, `except BaseException` and bare `except` outside the three last lines of defence."""
    for module in modules():
        found = [
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ExceptHandler) and is_broad(node) and not is_cleanup(node)
        ]
        if len(found) > BROAD_EXCEPTS.get(module.path, 0):
            yield f"{module.path}: catches everything in lines {found}, allowed {BROAD_EXCEPTS.get(module.path, 0)}"


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches everything."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)


def is_cleanup(handler: ast.ExceptHandler) -> bool:
    """Whether a handler only tidies up: whatever it caught, it ends by raising."""
    return isinstance(handler.body[-1], ast.Raise)


def wrong_imports() -> Iterator[str]:
    """Imports against the direction of the layers."""
    for module in modules():
        if module.part and module.part not in MAY_IMPORT:
            yield f"{module.path}: no layer; say in MAY_IMPORT what it may import"
        for line, name in module.imports():
            parts = name.split(".")
            if parts[0] != "proxy":
                continue
            target = parts[1] if len(parts) > 1 else ""
            if target != module.part and target not in MAY_IMPORT.get(module.part, set()):
                yield f"{module.path}:{line} imports {name}: against the direction"


def wrong_doors() -> Iterator[str]:
    """Third-party libraries imported beside their door."""
    for module in modules():
        for line, name in module.imports():
            library = name.split(".")[0]
            if library == "proxy" or library in sys.stdlib_module_names:
                continue
            if library not in DOORS:
                yield f"{module.path}:{line} imports {library}, which has no door in DOORS"
            elif not is_door(module.path, DOORS[library]):
                yield f"{module.path}:{line} imports {library}, whose door is {' or '.join(DOORS[library])}"


def impure_cores() -> Iterator[str]:
    """`mcp/`, `identity/` and `limits/` are pure: the standard library, orjson, `errors`, and nothing that waits."""
    for module in modules():
        if module.part not in ("mcp", "identity", "limits"):
            continue
        for line, name in module.imports():
            if name.split(".")[0] in ("asyncio", "socket", "ssl", "threading"):
                yield f"{module.path}:{line} imports {name}"
        yield from (
            f"{module.path}:{node.lineno} waits"
            for node in module.functions()
            if isinstance(node, ast.AsyncFunctionDef)
        )


def started_tasks() -> Iterator[str]:
    """Tasks started by anyone but the supervisor, which names, counts and stops them."""
    for module in modules():
        for node in ast.walk(module.tree):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            of_group = isinstance(called, ast.Attribute) and ast.unparse(called.value) == "group"  # asyncio.TaskGroup
            if name in ("create_task", "ensure_future") and module.path != "background/supervisor.py" and not of_group:
                yield f"{module.path}:{node.lineno} {name}: only background/supervisor.py starts tasks"


def empty_names() -> Iterator[str]:
    """Names of files, classes and functions that say nothing."""
    for module in modules():
        names = [(1, Path(module.path).stem)]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.append((node.lineno, node.name))
        for line, name in names:
            empty = EMPTY_WORDS.intersection(words(name)) or name.lower() == "data"
            if (empty or name.lstrip("_").startswith(EMPTY_VERBS)) and (module.path, name) not in GIVEN_NAMES:
                yield f"{module.path}:{line} {name}: the name says nothing"


def stale_given_names() -> Iterator[str]:
    """Excused names that are gone."""
    present = {(module.path, function.name) for module in modules() for function in module.functions()}
    yield from (
        f"{path} {name}: excused in GIVEN_NAMES, but gone" for path, name in GIVEN_NAMES if (path, name) not in present
    )


def untested_modules() -> Iterator[str]:
    """Modules without the test that mirrors them, and excuses that no longer hold."""
    present = {module.path: module for module in modules()}
    for path, module in present.items():
        if Path(path).name == "__init__.py" and not list(module.functions()):
            continue
        mirrored = (ROOT / "tests/unit" / path).with_name(f"test_{Path(path).name}").exists()
        if not mirrored and path not in TESTED_ELSEWHERE:
            yield f"{path}: no tests/unit/{Path(path).parent / f'test_{Path(path).name}'}"
        if mirrored and path in TESTED_ELSEWHERE:
            yield f"{path}: has its unit test; take it out of TESTED_ELSEWHERE"
    yield from (f"{path}: excused in TESTED_ELSEWHERE, but gone" for path in TESTED_ELSEWHERE if path not in present)


def orphaned_tests() -> Iterator[str]:
    """Unit tests whose module does not exist: `test_x.py` and `test_x_more.py` belong to `x.py`."""
    for test in sorted((ROOT / "tests/unit").rglob("test_*.py")):
        folder = PACKAGE / test.parent.relative_to(ROOT / "tests/unit")
        stem = test.stem.removeprefix("test_").strip("_")
        stems = [path.stem.strip("_") for path in folder.glob("*.py")]
        if not any(stem == other or stem.startswith(f"{other}_") for other in stems):
            yield f"{test.relative_to(ROOT)}: there is no proxy module of that name"


def unfinished_work() -> Iterator[str]:
    """Marks of work left for later; what is not done is an issue, not a comment."""
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "examples", "deploy", "docs"))]
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.suffix not in (".py", ".md", ".yaml", ".yml", ".mjs", ".js") or "node_modules" in path.parts:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if mark.search(line):
                yield f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}"


RULES: Final = (
    long_files, big_functions, long_median_function, silent_modules, wrong_share_of_docstrings, broad_excepts,
    wrong_imports, wrong_doors, impure_cores, started_tasks, empty_names, stale_given_names, untested_modules,
    orphaned_tests, unfinished_work,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_the_package_keeps_its_shape(rule: Callable[[], Iterator[str]]) -> None:
    """No place breaks the rule; the message lists all that do."""
    broken = list(rule())
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


# --- the rules themselves can fail ----------------------------------------------------------------------------------


def module_of(text: str, path: str = "dataplane/x.py") -> Module:
    """A module that exists in this test only."""
    return Module(path, text, ast.parse(text))


BAD: Final = [
    (long_files, "x = 1\n" * 301),
    (big_functions, "def f():\n" + "    x = 1\n" * 61),
    (big_functions, "def f(a, b, c, d, e, f, g): pass"),
    (big_functions, "def f():\n if 1:\n  for x in y:\n   while 1:\n    with a:\n     try: pass\n     finally: pass"),
    (long_median_function, "def f():\n" + "    x = 1\n" * 11),
    (silent_modules, "x = 1"),
    (wrong_share_of_docstrings, "x = 1\n" * 20),
    (broad_excepts, "try: pass\nexcept (ValueError, Exception): pass"),
    (broad_excepts, "try: pass\nexcept: pass"),
    (wrong_imports, "from proxy.background.supervisor import Supervisor"),
    (wrong_imports, "from proxy import app"),
    (wrong_doors, "def f():\n    import yaml"),
    (wrong_doors, "import requests"),
    (started_tasks, "loop.create_task(x())"),
    (started_tasks, "create_task(x())"),
    (empty_names, "class SessionManager: pass"),
    (empty_names, "def _handle_body(): pass"),
    (empty_names, "def data(): pass"),
    (untested_modules, "x = 1"),
]


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_each_rule_finds_what_it_forbids(
    rule: Callable[[], Iterator[str]], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that breaks a rule is named by it."""
    monkeypatch.setattr(sys.modules[__name__], "modules", lambda: (module_of(text),))
    assert any("x.py" in place or "median" in place or "docstrings" in place for place in rule())


def test_mcp_may_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mcp/` with I/O or a coroutine is named."""
    monkeypatch.setattr(
        sys.modules[__name__], "modules", lambda: (module_of("import asyncio\nasync def f(): pass", "mcp/x.py"),)
    )
    assert len(list(impure_cores())) == 2


def test_elif_is_not_deeper_than_its_if() -> None:
    """A long chain of conditions counts as one level."""
    chain = "def f():\n    if a: pass\n" + "    elif b: pass\n" * 6
    assert nesting(next(module_of(chain).functions())) == 1
