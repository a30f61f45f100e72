"""Starting and watching the processes that the measurements need: upstream, bare aiohttp, the proxy, the load.

Linux only: it reads /proc. CPU time is the scheduler's own count in nanoseconds, over all threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.load import Order, Report

ROOT: Final = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S: Final = 60.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """One child process; leaving the `with` block ends it."""

    def __init__(self, *arguments: str, port: int = 0, cpus: set[int] | None = None, **options: Any) -> None:
        self.port = port
        self.name = " ".join(arguments)
        self.child = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, **options)
        self.pid = self.child.pid
        if cpus:
            os.sched_setaffinity(self.pid, cpus)

    def cpu_ns(self) -> int:
        """CPU time of all threads so far, user and kernel."""
        try:
            tasks = list(Path(f"/proc/{self.pid}/task").iterdir())
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
        except OSError:  # a kernel without CONFIG_SCHEDSTATS: clock ticks of 10 ms
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))

    def rss_kib(self) -> int:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("no VmRSS")

    def wait_listening(self) -> Self:
        """Until the port answers; the process dying first is an error."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            time.sleep(0.05)
        raise TimeoutError(f"{self.name} does not listen on {self.port}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_upstream(cpus: set[int] | None = None) -> Process:
    """The cheap upstream of `upstream.py`."""
    port = free_port()
    return Process("benchmarks.upstream", str(port), port=port, cpus=cpus).wait_listening()


def start_bare(upstream_port: int, cpus: set[int] | None = None) -> Process:
    """The yardstick of `bare_aiohttp.py`."""
    port = free_port()
    url = f"http://127.0.0.1:{upstream_port}/mcp"
    return Process("benchmarks.bare_aiohttp", str(port), url, port=port, cpus=cpus).wait_listening()


def start_proxy(directory: Path, config: dict[str, Any], cpus: set[int] | None = None) -> Process:
    """The proxy, as an operator starts it; its log goes to a file in `directory`, where `config` is written too."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = config | {"listen": config.get("listen", {}) | {"port": port}, "admin": {"port": free_port()}}
    path = directory / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log.json").open("wb") as log:
        return Process(
            "proxy", "serve", "--config", str(path), port=port, cpus=cpus, stdout=log, stderr=log
        ).wait_listening()


def demo_config(upstream_port: int, **server: Any) -> dict[str, Any]:
    """One server, no routes: what a newcomer writes, with `server` keys added."""
    return {"servers": {"demo": {"url": f"http://127.0.0.1:{upstream_port}/mcp", **server}}}


class Load(Process):
    """The load generator of `load.py`, kept running."""

    def __init__(self, cpus: set[int] | None = None) -> None:
        super().__init__("benchmarks.load", cpus=cpus, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, order: Order) -> Report:
        """Carry one order out; answers that were not right are an error, because they make any figure worthless."""
        report = self.attempt(order)
        if report.errors or not report.calls:
            raise RuntimeError(f"wrong answers: {report} for {order}")
        return report

    def attempt(self, order: Order) -> Report:
        """Carry one order out, whatever is answered."""
        child = self.child
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(asdict(order)) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise RuntimeError("the load generator died")
        return Report(**json.loads(line))


@contextlib.contextmanager
def user_instructions(pid: int, enabled: bool) -> Iterator[list[int]]:
    """Count user instructions of a process with `perf` while the block runs; the list stays empty where that fails."""
    found: list[int] = []
    if not enabled:
        yield found
        return
    command = ["perf", "stat", "-x", ",", "-e", "instructions:u", "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as perf:
        try:
            yield found
        finally:
            perf.send_signal(signal.SIGINT)
            _, report = perf.communicate()
    count = report.split(",")[0].strip()
    if count.isdigit():
        found.append(int(count))


def foreign_cpu_s(*processes: Process) -> float:
    """CPU time that all cores of the machine have spent so far on anything but this process and `processes`, seconds;
    what the host of a virtual machine took away counts, too. In steps of 10 ms."""
    fields = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy_s - time.process_time() - sum(process.cpu_ns() for process in processes) / 1e9


def perf_works() -> bool:
    """Whether this machine counts user instructions."""
    if shutil.which("perf") is None:
        return False
    command = ["perf", "stat", "-x", ",", "-e", "instructions:u", "true"]
    first = subprocess.run(command, capture_output=True, text=True, check=False).stderr.split(",")[0]
    return first.strip().isdigit()


def raise_file_limit() -> None:
    """Allow this process, and those it starts, as many open files as the machine permits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def two_cores() -> tuple[set[int], set[int]]:
    """(cores for load and upstream, cores for the proxy): apart where there are two, else the same."""
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, {cores[1]}) if len(cores) > 1 else ({cores[0]}, {cores[0]})


@dataclass
class Figure:
    """One measured figure against its target (smaller is better)."""

    name: str
    value: float
    target: float
    unit: str

    @property
    def failed(self) -> bool:
        """Over the target, or not a number."""
        return not self.value <= self.target

    def __str__(self) -> str:
        verdict = "MISSED" if self.failed else "ok"
        return f"{self.name:<64} {self.value:10.3f} {self.unit:<4} target {self.target:g} {self.unit:<4} {verdict}"


def conclude(figures: list[Figure]) -> int:
    """Print the figures and `failed: N`; the process's exit status."""
    for figure in figures:
        print(figure)
    failed = sum(figure.failed for figure in figures)
    print(f"failed: {failed}")
    return 1 if failed else 0
