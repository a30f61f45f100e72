"""What is shipped: the wheel, the image, the Compose file, the systemd unit and the Makefile name things that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from proxy.config.loader import load

ROOT: Final = Path(__file__).resolve().parent.parent
COMPOSE: Final = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()


def copied_paths() -> list[str]:
    """Sources of every COPY from the build context."""
    lines = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    return [path for line in lines if not line[0].startswith("--from") for path in line]


def let_through(path: str) -> bool:
    """Whether .dockerignore sends a path to the builder: it excludes everything, then names exceptions."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    return any(path == rule or path.startswith(f"{rule}/") for rule in allowed)


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """As a user builds it: modules, migrations and the type marker are in, tests are not, the command is declared."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "proxy", source / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "sql", source / "sql")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(tmp_path), str(source)], check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "mcp-manager = proxy.cli:main" in archive.read(entry_points).decode()
    expected = {str(path.relative_to(source)) for path in (source / "proxy").rglob("*") if path.is_file()}
    assert "proxy/py.typed" in expected
    expected |= {f"proxy/store/migrations/{path.name}" for path in (ROOT / "sql/migrations").glob("*.sql")}
    assert expected == {name for name in names if ".dist-info/" not in name}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("path", copied_paths())
def test_the_image_copies_what_exists(path: str) -> None:
    """Each source of a COPY is here, and .dockerignore lets it through."""
    assert (ROOT / path.removeprefix("./")).exists()
    assert let_through(path.removeprefix("./"))


def test_the_image_runs_a_command_that_exists_as_a_user_without_rights() -> None:
    """The last stage serves the configuration that was copied, as a numbered user, with a health check."""
    run_stage = DOCKERFILE.split("AS run")[1].split("FROM ")[0]
    assert 'CMD ["serve", "--config", "/etc/mcp-manager/config.yaml"]' in run_stage
    assert "COPY deploy/config.yaml /etc/mcp-manager/config.yaml" in run_stage
    assert re.search(r"^USER \d+:\d+$", run_stage, re.MULTILINE)
    assert "'/livez'" in run_stage.split("HEALTHCHECK")[1]
    assert DOCKERFILE.rstrip().endswith("FROM run")


def test_the_health_check_of_the_image_is_valid_python() -> None:
    """The program in HEALTHCHECK compiles once the line continuation is taken out."""
    program = re.search(r'HEALTHCHECK .*?"-c", "(.*?)"\]', DOCKERFILE, re.DOTALL)
    assert program is not None
    compile(program[1].replace("\\\n", ""), "HEALTHCHECK", "exec")


def test_the_image_configuration_can_be_used() -> None:
    """deploy/config.yaml loads, on ports that the image exposes, with state in the volume of the image."""
    config = load(ROOT / "deploy/config.yaml", {})
    exposed = re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    assert exposed is not None
    assert {str(config.listen.port), str(config.admin.port)} == set(exposed[1].split())
    assert f"VOLUME {config.state_dir}" in DOCKERFILE
    assert (config.listen.host, config.admin.host) == ("0.0.0.0", "0.0.0.0")


def services() -> dict[str, Any]:
    """The services of the Compose file."""
    found: dict[str, Any] = COMPOSE["services"]
    return found


def test_compose_starts_the_proxy_with_what_stands_around_it() -> None:
    """All five, each with a health check of its own or of its image."""
    assert set(services()) == {"proxy", "demo", "postgres", "redis", "prometheus"}
    assert all("healthcheck" in service for name, service in services().items() if name != "proxy")


@pytest.mark.parametrize("name", services())
def test_a_compose_service_names_files_and_services_that_exist(name: str) -> None:
    """Mounted files, named volumes, build targets and dependencies."""
    service = services()[name]
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        assert (ROOT / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
    if "build" in service:
        assert f" AS {service['build']['target']}\n" in DOCKERFILE
    assert set(service.get("depends_on", {})) <= set(services())
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_prometheus_scrapes_the_admin_port_of_the_compose_service() -> None:
    """The target is a service of the Compose file and the port of its configuration."""
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for group in job["static_configs"] for target in group["targets"]]
    assert f"proxy:{load(ROOT / 'deploy/config.yaml', {}).admin.port}" in targets


def test_the_demo_server_is_where_the_image_configuration_looks() -> None:
    """Compose starts examples/demo_server.py, and the proxy's configuration names that service."""
    assert load(ROOT / "deploy/config.yaml", {}).servers["demo"].url.startswith("http://demo:")
    script = services()["demo"]["command"][0]
    assert (ROOT / script.lstrip("/")).is_file()


def test_the_unit_waits_longer_than_a_drain_takes() -> None:
    """systemd and Compose kill only after `listen.drain` is over."""
    drain = load(ROOT / "deploy/config.yaml", {}).listen.drain
    unit = (ROOT / "deploy/mcp-manager.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > drain.delay + drain.grace
    assert int(services()["proxy"]["stop_grace_period"].removesuffix("s")) > drain.delay + drain.grace


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    """systemd accepts every line, with a program that exists in the place of ours."""
    unit = tmp_path / "mcp-manager.service"
    text = (ROOT / "deploy/mcp-manager.service").read_text()
    unit.write_text(text.replace("/opt/mcp-manager/bin/mcp-manager", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert str(unit.name) not in done.stderr, done.stderr


def test_make_prints_its_targets_and_each_can_be_planned() -> None:
    """`make` alone is help; every target of the help resolves."""
    environment = {"PATH": os.environ["PATH"]}
    listed = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    targets = re.findall(r"^make (\S+)", listed.stdout, re.MULTILINE)
    assert {"run", "test", "bench", "proofs", "conformance", "clean", "help"} <= set(targets)
    for target in targets:
        subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, env=environment, capture_output=True, timeout=60, check=True
        )


def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    """An interpreter that is too old, or none, is named in one sentence with what to do."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = ["make", "run", "PYTHON=/bin/false"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()
