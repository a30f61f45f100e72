"""Without npm a developer's tests are skipped and CI fails: a green CI run means that the real clients took part."""

import pytest

from tests.conformance import npm, require


@pytest.fixture
def without_npm(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A machine with nothing installed and no npm on the path."""
    monkeypatch.setattr(npm, "_STAMP", tmp_path_factory.mktemp("empty") / ".installed")
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_machine_without_npm_skips_unless_it_is_ci(
    without_npm: None, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
):
    """The reason is given either way."""
    monkeypatch.setenv("CI", ci)

    with pytest.raises(outcome, match="npm is not installed"):
        require.require_node()
