"""The circuit of a database: it opens at once, and closes by a probe only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.store.circuit import Circuit


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_failure_opens_it_and_a_probe_closes_it() -> None:
    """Further failures of those who were on their way change nothing."""
    clock = Clock()
    circuit = Circuit(clock)
    assert not circuit.open and not circuit.probe_due()
    circuit.failed()
    circuit.failed()
    assert circuit.open and circuit.opened == 1 and not circuit.probe_due()
    clock.now += 0.25
    assert circuit.probe_due()
    circuit.probed(True)
    assert not circuit.open and not circuit.probe_due()


def test_probes_become_rarer_up_to_one_a_second() -> None:
    """So a database is found again a second after its return at the latest."""
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed()
    waits = []
    for _ in range(6):
        began = clock.now
        while not circuit.probe_due():
            clock.now += 0.0625
        waits.append(clock.now - began)
        circuit.probed(False)
    assert waits == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]


@given(st.lists(st.sampled_from(["fail", "wait", "good probe", "bad probe"]), max_size=40))
def test_it_is_open_exactly_from_a_failure_to_a_good_probe(steps: list[str]) -> None:
    """Whatever the order of events."""
    clock = Clock()
    circuit = Circuit(clock)
    expected = False
    for step in steps:
        if step == "fail":
            circuit.failed()
            expected = True
        elif step == "wait":
            clock.now += 0.3
        elif circuit.probe_due():
            circuit.probed(step == "good probe")
            expected = expected and step != "good probe"
        assert circuit.open == expected
