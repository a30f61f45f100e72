"""Asking a second server when the first takes long, and taking the first answer that comes.

Owns the race: who starts when, who wins, and that nothing of the loser is left. It must not know what is sent, whether
it may be sent twice (`retries.py`), or what an answer is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from proxy.errors import Refusal

Answer = TypeVar("Answer")
Try = Coroutine[Any, Any, Answer]


async def first_of(
    send: Try[Answer], spare: Callable[[], Try[Answer] | None], after_s: float, close: Callable[[Answer], None]
) -> Answer:
    """The answer of `send`, or of the one that `spare` gives when there is none after `after_s` seconds.

    `spare` may give none: there is no other server, or no budget. Who fails leaves it to the other; have both failed,
    the refusal of `send` is raised. A failure before `after_s` is raised at once: what follows it is a retry. The loser
    is cancelled and has ended when this returns; an answer that it has got all the same goes to `close`. So it is when
    the caller is cancelled. Both run as tasks, and each has begun before it can be cancelled: a `finally` in it runs.
    """
    tries: list[asyncio.Task[Answer | Refusal]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tries.append(group.create_task(_outcome(send)))
            winner = await _race(group, tries, spare, after_s)
            for task in tries:
                task.cancel()
    except BaseException as error:
        _close_all(tries, None, close)
        if isinstance(error, BaseExceptionGroup):  # a bug in one of them, which the group wraps
            raise error.exceptions[0] from None
        raise
    _close_all(tries, winner, close)
    outcome = winner.result()
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome


async def _race(
    group: asyncio.TaskGroup,
    tries: list[asyncio.Task[Answer | Refusal]],
    spare: Callable[[], Try[Answer] | None],
    after_s: float,
) -> asyncio.Task[Answer | Refusal]:
    """The task whose outcome counts."""
    first = tries[0]
    await asyncio.wait(tries, timeout=after_s)
    if first.done():
        return first
    other = spare()
    if other is None:
        await asyncio.wait(tries)
        return first
    tries.append(group.create_task(_outcome(other)))
    pending = set(tries)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in (task for task in tries if task in done):
            if not isinstance(task.result(), Refusal):
                return task
    return first


async def _outcome(send: Try[Answer]) -> Answer | Refusal:
    """A refusal is a result here: raised, it would end the other try."""
    try:
        return await send
    except Refusal as refusal:
        return refusal


def _close_all(
    tries: list[asyncio.Task[Answer | Refusal]],
    winner: asyncio.Task[Answer | Refusal] | None,
    close: Callable[[Answer], None],
) -> None:
    """Every answer but the winner's."""
    for task in tries:
        if task is winner or not task.done() or task.cancelled() or task.exception() is not None:
            continue
        outcome = task.result()
        if not isinstance(outcome, Refusal):
            close(outcome)
