"""Work counted in instructions of the interpreter: a measure of time that no other process disturbs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def bytecodes(work: Callable[[], object]) -> int:
    """How many instructions `work` takes, its own call included."""
    count = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()  # from 3.12 on, code is instrumented as it runs for the first time under a trace
        count = 0
        work()
    finally:
        sys.settrace(before)
    return count
