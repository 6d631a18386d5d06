"""Questions to the device, whose answers decide what is computed next; and how to record what depends on them.

A CUDA graph cannot wait for an answer. It can hold the way that the last answers led to, and say after each replay
whether they would still allow it: then its result counts, and else the pass is done by the usual code, and recorded
anew. So an answer that takes a shortcut is looked at again in every replay; one that goes the long way needs not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Answers:
    """Those of one pass, in their order; and while it is recorded, the tensors that say whether they still hold.

    Not of one thread: autograd's backward passes run in others.

    Args:
        room: How much more than those answers ask for is recorded, so that they hold for longer: at least 1.
    """

    def __init__(self, room: int = 1) -> None:
        self.room = room
        self.given: list[object] = []
        self.left: list[object] = []
        self.checks: list[Tensor] = []
        self.recording = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within it the answers are given by the device, and noted."""
        self.given = []
        with _as_current(self):
            yield

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within it the answers are those that were noted, and nothing waits for the device.

        Raises:
            RuntimeError: at the end, where fewer questions were asked.
        """
        self.left, self.checks, self.recording = list(self.given), [], True
        try:
            with _as_current(self):
                yield
            if self.left:
                raise RuntimeError(f"{len(self.left)} questions were not asked again")
        finally:
            self.recording = False

    def hold(self, like: Tensor) -> Tensor:
        """Whether all that were recorded still hold: 1 or 0, ``()``, in the dtype of ``like``."""
        if not self.checks:
            return torch.ones_like(like)
        return torch.stack([check.reshape(()) for check in self.checks]).all().to(like.dtype)


_current: Answers | None = None


@contextmanager
def _as_current(answers: Answers) -> Iterator[None]:
    global _current
    before, _current = _current, answers
    try:
        yield
    finally:
        _current = before


def recording() -> int:
    """0 where the device is asked; while recording the room that there should be for other answers, at least 1."""
    return _current.room if _current is not None and _current.recording else 0


def decide(
    values: Sequence[Tensor], choose: Callable[[list[float]], T], allowed: Callable[[T], Tensor | None] = lambda _: None
) -> T:
    """What ``choose`` makes of the numbers ``values``, each ``()``; one wait for the device.

    Args:
        values: The question.
        choose: From their values to an answer.
        allowed: While recording: from the answer to whether it is right now, a bool tensor ``()``; None: always.
    """
    if not recording():
        answer = choose(torch.stack([value.double() for value in values]).tolist())
        if _current is not None:
            _current.given.append(answer)
        return answer
    if not _current.left:
        raise RuntimeError("a question that was not asked before")
    answer = _current.left.pop(0)
    check = allowed(answer)
    if check is not None:
        _current.checks.append(check)
    return answer


def require(condition: Tensor) -> None:
    """While recording: what is recorded counts only where ``condition`` ``()`` holds."""
    _current.checks.append(condition)


def allows(condition: Tensor) -> bool:
    """Whether ``condition`` ``()`` holds, so that a shortcut may be taken; without it the long way is right as well."""
    return decide([condition], lambda found: bool(found[0]), lambda answer: condition if answer else None)


def places(mask: Tensor) -> Tensor:
    """Where ``mask`` ``(n,)`` holds, int64 ``(m,)``; recorded is only that it holds nowhere.

    Raises:
        RuntimeError: while recording, where it held somewhere before.
    """
    if not recording():
        found = mask.nonzero()[:, 0]
        if _current is not None:
            _current.given.append(len(found) == 0)
        return found
    if not _current.left or not _current.left.pop(0):
        raise RuntimeError("the shapes of what follows depend on the numbers")
    require(~mask.any())
    return torch.empty(0, dtype=torch.int64, device=mask.device)
