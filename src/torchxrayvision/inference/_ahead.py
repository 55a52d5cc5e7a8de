"""Work on threads that runs a little ahead of whoever takes the results."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from torchxrayvision.errors import ImageReadError
from torchxrayvision.inference._archives import SequentialReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torchxrayvision.inference._sources import Source

__all__ = ["ahead", "with_data"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ahead(
    function: Callable[[_In], _Out], items: Iterable[_In], *, workers: int, waiting: int
) -> Iterator[_Out]:
    """Results in the order of the items; only so many of them in memory.

    Args:
        function: Called on threads.
        items: Consumed lazily.
        workers: Threads.
        waiting: Most results that are begun and not yet taken.

    Yields:
        One result an item; an exception of the function is raised in its place.

    Example:
        >>> list(ahead(abs, [-1, 2], workers=1, waiting=2))
        [1, 2]
    """
    remaining = iter(items)
    pending: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="xrv-ahead") as pool:
        try:
            while True:
                for item in itertools.islice(remaining, waiting - len(pending)):
                    pending.append(pool.submit(function, item))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def with_data(sources: Iterable[Source]) -> Iterator[tuple[Source, bytes | None]]:
    """Sources for threads that take them out of order.

    Args:
        sources: In the order of their archives.

    Yields:
        Each source with its bytes where its archive can only be read in order, else with None.
    """
    with closing(SequentialReader()) as reader:
        for source in sources:
            if source.member is None or not source.member.sequential:
                yield source, None
                continue
            try:
                yield source, reader.read(source.path, source.member)
            except ImageReadError as error:
                yield dataclasses.replace(source, problem=error.reason), None
