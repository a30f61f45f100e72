"""The official suite in short: `make conformance` runs all of it."""

import pytest

from tests.conformance import run
from tests.conformance.npm import Node
from tests.conformance.require import require_node


@pytest.fixture(scope="session")
def node() -> Node:
    """Node and the npm packages; skips without npm, fails without it in CI."""
    return require_node()


def test_the_suite_sees_no_difference_between_the_server_and_the_server_behind_the_proxy(
    node: Node, capsys: pytest.CaptureFixture[str]
):
    """Sessions, streams, questions of the server, header checks and the modern lifecycle: check by check the same."""
    code = run.main(["--short"])

    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "differences: 0", printed
    assert code == 0
    assert len(printed.splitlines()) == len(run.SHORT) + 2
