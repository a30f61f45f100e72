"""A change of the configuration is noticed, by content, and handed over once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.background.config_watch import ConfigWatch
from proxy.config import Config, ConfigError, load


def text(url: str, headers: str = "{}") -> str:
    """A configuration whose server has this URL."""
    return f"servers: {{a: {{url: '{url}', headers: {headers}}}}}\n"


class Scene:
    """A configuration file, a watch on it, and what came out: URLs of what was applied, problems of what was not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.came: list[str] = []
        self.loads = 0
        path.write_text(text("http://one/"))
        self.watch = self.watching()

    def watching(self) -> ConfigWatch:
        """A watch that begins now."""
        return ConfigWatch(self.path, self._load, self._apply, self._report)

    def _load(self) -> Config:
        self.loads += 1
        return load(self.path, {})

    def _apply(self, config: Config) -> None:
        headers = [value.get_secret_value() for value in config.servers["a"].headers.values()]
        self.came.append(" ".join([config.servers["a"].url, *headers]))

    def _report(self, error: ConfigError) -> None:
        self.came.extend(problem.message for problem in error.problems)

    def steps(self, number: int = 2) -> list[str]:
        """What comes of so many steps."""
        self.came.clear()
        for _ in range(number):
            self.watch.step()
        return list(self.came)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A watched file in a directory of its own."""
    return Scene(tmp_path / "config.yaml")


def test_what_is_there_at_the_start_is_not_applied(scene: Scene) -> None:
    """It is in force already; nothing is even loaded."""
    assert scene.steps(5) == []
    assert scene.loads == 0


def test_a_change_is_applied_once(scene: Scene) -> None:
    """However often one looks."""
    scene.path.write_text(text("http://two/"))
    assert scene.steps(5) == ["http://two/"]
    assert scene.steps(5) == []


def test_a_change_counts_once_it_stands_still(scene: Scene) -> None:
    """Half a file can be a valid configuration with servers missing."""
    scene.path.write_text(text("http://half/"))
    assert scene.steps(1) == []
    scene.path.write_text(text("http://whole/"))
    assert scene.steps(1) == []
    assert scene.steps(1) == ["http://whole/"]


def test_a_change_that_is_taken_back_is_none(scene: Scene) -> None:
    """The old content is in force."""
    before = scene.path.read_text()
    scene.path.write_text("x")
    assert scene.steps(1) == []
    scene.path.write_text(before)
    assert scene.steps(3) == []
    assert scene.loads == 0


def by_rewriting(path: Path, content: str) -> None:
    """In place."""
    path.write_text(content)


def by_renaming(path: Path, content: str) -> None:
    """As editors do: a new file takes the name."""
    fresh = path.with_name("fresh")
    fresh.write_text(content)
    fresh.replace(path)


def by_linking(path: Path, content: str) -> None:
    """As Kubernetes does: the name is a link into a directory that is itself a link, which is swapped."""
    folder = path.parent / f"..{abs(hash(content))}"
    folder.mkdir()
    (folder / path.name).write_text(content)
    (path.parent / "..next").symlink_to(folder.name)
    (path.parent / "..next").replace(path.parent / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(Path("..data") / path.name)


def by_forging(path: Path, content: str) -> None:
    """With the size and the time of before."""
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [by_rewriting, by_renaming, by_linking, by_forging])
def test_every_way_of_changing_a_file_is_seen(scene: Scene, change: Callable[[Path, str], None]) -> None:
    """Content counts, not inode, size or time."""
    for url in ("http://two/", "http://six/", "http://ten/"):
        change(scene.path, text(url))
        assert scene.steps() == [url]


def test_touching_a_file_is_no_change(scene: Scene) -> None:
    """Nor is writing the same again."""
    scene.path.write_text(scene.path.read_text())
    os.utime(scene.path, (1, 1))
    assert scene.steps(3) == []


def test_each_bad_content_is_reported_once(scene: Scene) -> None:
    """What was in force stays; a good file afterwards is applied."""
    scene.path.write_text("servers: {}\n")
    assert scene.steps(5) == ["must not be empty"]
    scene.path.write_text("server: {}\n")
    assert len(scene.steps(5)) == 2
    scene.path.write_text(text("http://good/"))
    assert scene.steps(5) == ["http://good/"]


def test_a_file_that_is_gone_is_reported_once(scene: Scene) -> None:
    """And applied when it is back."""
    scene.path.unlink()
    assert scene.steps(5) == ["cannot be read: No such file or directory"]
    scene.path.write_text(text("http://back/"))
    assert scene.steps(5) == ["http://back/"]


def test_secret_files_are_watched_too(scene: Scene) -> None:
    """Those of the configuration in force."""
    secret = scene.path.with_name("token")
    secret.write_text("first")
    scene.path.write_text(text("http://x/", "{A: file:token}"))
    assert scene.steps() == ["http://x/ first"]
    secret.write_text("second\n")
    assert scene.steps() == ["http://x/ second"]
    scene.path.write_text(text("http://y/"))
    assert scene.steps() == ["http://y/"]
    secret.write_text("third")
    assert scene.steps(3) == []


def test_a_missing_secret_file_mends_a_configuration_by_appearing(scene: Scene) -> None:
    """Those of a refused configuration are watched as well."""
    scene.path.write_text(text("http://x/", "{A: file:token}"))
    assert scene.steps(3) == ["the secret file cannot be read: No such file or directory"]
    scene.path.with_name("token").write_text("abc")
    assert scene.steps(3) == ["http://x/ abc"]


def test_files_of_the_first_configuration_can_be_named(scene: Scene) -> None:
    """It was loaded before there was a watch."""
    secret = scene.path.with_name("token")
    secret.write_text("first")
    scene.path.write_text(text("http://x/", "{A: file:token}"))
    scene.watch = ConfigWatch(scene.path, scene._load, scene._apply, scene._report, files=load(scene.path, {}).files)
    assert scene.steps(3) == []
    secret.write_text("second")
    assert scene.steps(3) == ["http://x/ second"]


def test_a_reload_loads_whatever_is_there(scene: Scene) -> None:
    """SIGHUP: at once, changed or not, and a bad file is reported every time."""
    scene.watch.reload()
    scene.watch.reload()
    assert scene.came == ["http://one/", "http://one/"]
    scene.path.write_text("servers: {}\n")
    scene.came.clear()
    scene.watch.reload()
    scene.watch.reload()
    assert scene.came == ["must not be empty", "must not be empty"]
    assert scene.steps(3) == []


def test_a_change_during_a_load_is_seen_afterwards(scene: Scene) -> None:
    """The fingerprint is taken before."""
    loads = scene._load

    def load_and_change() -> Config:
        config = loads()
        if scene.loads == 1:
            scene.path.write_text(text("http://three/"))
        return config

    scene.watch = ConfigWatch(scene.path, load_and_change, scene._apply, scene._report)
    scene.path.write_text(text("http://two/"))
    assert scene.steps(5) == ["http://two/", "http://three/"]


async def test_reading_aside_gives_the_same(scene: Scene) -> None:
    """In a thread; what came of it is handed over in the loop."""
    scene.path.write_text(text("http://two/"))
    await scene.watch.step_aside()
    await scene.watch.step_aside()
    await scene.watch.step_aside()
    assert scene.came == ["http://two/"]
    await scene.watch.reload_aside()
    assert scene.came == ["http://two/", "http://two/"]


def test_a_pipe_in_place_of_the_file_is_not_waited_for(scene: Scene) -> None:
    """It is reported as what it is."""
    scene.path.unlink()
    os.mkfifo(scene.path)
    assert scene.steps(3) == ["cannot be read: not a regular file"]
