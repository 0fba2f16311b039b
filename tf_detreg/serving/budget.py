"""What all requests together may hold at a time, so that many that are within their limits cannot take all memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from tf_detreg.serving.problem import Problem


class Budget:
    """A quantity that requests share, such as bytes of bodies or pixels of pictures.

    Args:
        limit: How much of it all requests together hold at most.

    Example:
        >>> budget = Budget(10)
        >>> with budget.growing() as add:
        ...     add(4)
        ...     budget.held
        4
        >>> budget.held
        0
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    @contextlib.contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that adds to what a request holds; all of it is given back at the end of the block.

        The function raises `Problem` (503) where the limit does not allow more.
        """
        total = 0

        def add(amount: int) -> None:
            nonlocal total
            if self.held + amount > self.limit:
                raise Problem(503, "The server is busy.")
            total, self.held = total + amount, self.held + amount

        try:
            yield add
        finally:
            self._give_back(total)

    @contextlib.asynccontextmanager
    async def waiting(self, amount: int) -> AsyncIterator[None]:
        """Hold an amount during the block; wait for it first, in the order of asking.

        Args:
            amount: At most the limit.
        """
        async with self._turn:
            while self.held + amount > self.limit:
                self._freed.clear()
                await self._freed.wait()
            self.held += amount
        try:
            yield
        finally:
            self._give_back(amount)

    def _give_back(self, amount: int) -> None:
        self.held -= amount
        self._freed.set()
