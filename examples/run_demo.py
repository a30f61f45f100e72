"""`make run`: a real MCP server, the proxy in front of it, one tool call through both, and then it keeps serving.

Owns two child processes (the server, the proxy) and stops them in the reverse order of starting. It talks to the proxy
as any client does and imports nothing of it.

    python examples/run_demo.py             keep serving until Ctrl-C
    python examples/run_demo.py --once      stop after the call; exit code 0 when it worked
    python examples/run_demo.py --port 8888 clients connect there, or a clear message if the port is taken
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn, cast
from urllib.parse import urlsplit

import yaml
from mcp import Client

ROOT: Final = Path(__file__).resolve().parents[1]
#: What a run leaves behind, one directory per port: the configuration in use and the logs of both processes.
RUN: Final = ROOT / ".run"
TEMPLATE: Final = ROOT / "examples" / "config.yaml"
_HOST: Final = "127.0.0.1"
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05


#: The YAML document of the proxy, as loaded.
Config = dict[str, Any]


class DemoFailed(Exception):
    """Something did not start or did not answer; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the three listeners are."""

    proxy: int
    admin: int
    server: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours and the file that its output goes to."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def failure(self) -> DemoFailed:
        """Why it is no use any more, with the end of what it said."""
        said = self.log.read_text(errors="replace").strip().splitlines()[-15:]
        return DemoFailed("\n".join([f"The {self.name} stopped (exit code {self.process.returncode}):", *said]))


# --- ports and configuration -----------------------------------------------------------------------------------------


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _usual_or_free(port: int, what: str) -> int:
    if _is_free(port):
        return port
    instead = _any_free_port()
    print(f"Port {port} is taken by another program: the {what} uses {instead} instead.")
    return instead


def choose_ports(config: Config, asked: int | None) -> Ports:
    """The ports of the configuration, or free ones where another program has them. Raises `DemoFailed` if the port
    that the user asked for is taken."""
    if asked is not None and not _is_free(asked):
        raise DemoFailed(f"Port {asked} is taken by another program. Stop it, or choose another with --port.")
    server = urlsplit(config["servers"]["demo"]["url"]).port or 8765
    return Ports(
        proxy=asked or _usual_or_free(int(config["listen"]["port"]), "proxy"),
        admin=_usual_or_free(int(config["admin"]["port"]), "admin listener"),
        server=_usual_or_free(server, "demo server"),
    )


def write_config(config: Config, ports: Ports) -> Path:
    """The template with the chosen ports, as a file that the proxy loads, in a directory of this run's own."""
    config["listen"] |= {"port": ports.proxy}
    config["admin"] |= {"port": ports.admin}
    config["servers"]["demo"] |= {"url": f"http://{_HOST}:{ports.server}/mcp"}
    config["state_dir"] = "state"
    path = RUN / f"demo-{ports.proxy}" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


# --- processes -------------------------------------------------------------------------------------------------------


async def _answers(url: str) -> bool:
    def ask() -> bool:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)

    try:
        return await asyncio.to_thread(ask)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(_HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def _until_ready(child: Child, port: int, ready_url: str | None) -> None:
    deadline = time.monotonic() + _START_S
    while not (await _answers(ready_url) if ready_url else await _listens(port)):
        if child.process.returncode is not None:
            raise child.failure()
        if time.monotonic() > deadline:
            raise DemoFailed(f"The {child.name} did not answer within {_START_S:.0f} s; see {child.log}")
        await asyncio.sleep(_POLL_S)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def child(command: list[str], log: Path, port: int, ready_url: str | None = None) -> AsyncIterator[Child]:
    """Run a command until the block ends. Its own session keeps Ctrl-C away from it: we stop it, in order."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
    started = Child(log.stem.replace("-", " "), process, log)
    try:
        await _until_ready(started, port, ready_url)
        yield started
    finally:
        await _stop(process)


# --- what the user sees ----------------------------------------------------------------------------------------------


async def _add(client: Client) -> str:
    result = await client.call_tool("add", {"a": 19, "b": 23})
    return getattr(result.content[0], "text", "") if result.content else ""


async def call_through_proxy(url: str) -> None:
    """List the tools and call one through the proxy with the official client. Raises `DemoFailed` on a wrong answer."""
    async with Client(url, read_timeout_seconds=20) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        answer = await _add(client)
        took_ms = []
        for _ in range(20):
            began = time.perf_counter()
            await _add(client)
            took_ms.append((time.perf_counter() - began) * 1000)
        name = client.server_info.name if client.server_info else "?"
        print(f"  connected to   {name}, protocol {client.protocol_version}")
        print(f"  its tools      {', '.join(tools)}")
        print(f"  add(19, 23)    {answer}   (20 more calls: {median(took_ms):.1f} ms each, client and server included)")
    if answer != "42":
        raise DemoFailed("The tool's answer is not 42: something is wrong between here and the server.")


def _print_urls(ports: Ports, config: Path, pid: int) -> None:
    admin, shown = f"http://{_HOST}:{ports.admin}", config.relative_to(ROOT)
    command = Path(sys.executable).with_name("mcp-manager")
    program = command.relative_to(ROOT) if command.is_relative_to(ROOT) else f"{sys.executable} -m proxy"
    print(f"""
  MCP endpoint   http://{_HOST}:{ports.proxy}/demo/mcp
  metrics        {admin}/metrics
  readiness      {admin}/readyz
  configuration  {shown}   (a change applies within seconds)
  proxy's log    {shown.with_name("proxy.log")}   (pid {pid})

  To connect your own client, print its configuration:
    {program} client-config demo -c {shown}""")
    if (config.parent / "state" / "first-key").exists():
        print(f"""
  Clients on this machine need no key. The tenant `default` has one in {shown.with_name("state")}/first-key;
  to make another:
    {program} keys create --tenant default --name mine -c {shown}

  The calls are on record:
    {program} audit search --action tools/call --limit 5 -c {shown}""")


async def _watch(children: list[Child]) -> NoReturn:
    """Never returns: cancelled when the user has had enough. Raises `DemoFailed` when a child ends on its own."""
    while True:
        for one in children:
            if one.process.returncode is not None:
                raise one.failure()
        await asyncio.sleep(0.5)


def _cancel_on_signals() -> None:
    """Ctrl-C, SIGTERM and a closed terminal cancel the whole demo, so that its children are stopped on the way out."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, cast("asyncio.Task[Any]", task).cancel)


async def demo(asked_port: int | None, once: bool) -> None:
    """Start both, call, and serve until stopped unless `once`. Raises `DemoFailed`."""
    _cancel_on_signals()
    config = yaml.safe_load(TEMPLATE.read_text())
    ports = choose_ports(config, asked_port)
    try:
        await _serve(config, ports, once)
    except DemoFailed as failure:
        if "embedded" not in str(failure):
            raise
        print(f"{failure}\n\nNow without databases: no tenants, no keys.\n")
        await _serve({key: value for key, value in config.items() if key not in ("postgres", "redis")}, ports, once)


async def _serve(config: Config, ports: Ports, once: bool) -> None:
    path = write_config(config, ports)
    ready = f"http://{_HOST}:{ports.admin}/readyz"
    async with (
        child(
            ["examples/demo_server.py", "--port", str(ports.server)], path.with_name("demo-server.log"), ports.server
        ) as server,
        child(["-m", "proxy", "serve", "-c", str(path)], path.with_name("proxy.log"), ports.proxy, ready) as proxy,
    ):
        print(f"MCP Manager proxy on port {ports.proxy}, in front of an MCP server on port {ports.server}.")
        print("A call through the proxy with the official client:")
        await call_through_proxy(f"http://{_HOST}:{ports.proxy}/demo/mcp")
        _print_urls(ports, path, proxy.process.pid)
        if not once:
            print("\nServing until Ctrl-C.", flush=True)
            await _watch([server, proxy])


def main() -> int:
    """Exit code 0 when the call worked, 1 when something did not start or did not answer."""
    parser = argparse.ArgumentParser(
        description="A real MCP server, the proxy in front of it, and a call through both."
    )
    parser.add_argument("--once", action="store_true", help="stop after the call instead of serving")
    parser.add_argument("--port", type=int, help="where clients connect (default: 8080, or a free one)")
    options = parser.parse_args()
    logging.getLogger("mcp").setLevel(logging.ERROR)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        asyncio.run(demo(options.port, options.once))
    except DemoFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("\nStopped.")
        return 1 if options.once else 0
    except Exception as error:
        print(f"\nThe call through the proxy failed: {error!r}; see the logs in {RUN}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
