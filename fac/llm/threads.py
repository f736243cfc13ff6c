"""Many requests at once by threads that an interrupted process need not wait for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    do: Callable[[T, threading.Event], R],
    items: Iterable[T],
    count: int,
    patience: Callable[[BaseException, int], float],
) -> Generator[tuple[T, R], None, None]:
    """`do(item, stop)` of every item by `count` threads, as (item, result) in the order in which they end.

    When one fails or the caller is stopped, `stop` is set, no other item is begun, and those under way get
    `patience(error, how many)` seconds. The threads are daemons: those of concurrent.futures hold up the end of the
    process for as long as a server does not answer.
    """
    todo, stop = deque(items), threading.Event()
    done: SimpleQueue[tuple[T, R | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while not stop.is_set():
            try:
                item = todo.popleft()
            except IndexError:
                return
            try:
                done.put((item, do(item, stop), None))
            except BaseException as error:  # the caller's to judge
                stop.set()
                done.put((item, None, error))

    expected = len(todo)
    crew = [threading.Thread(target=work, daemon=True) for _ in range(min(count, expected))]
    for thread in crew:
        thread.start()
    try:
        for _ in range(expected):
            item, result, error = done.get()
            if error is not None:
                raise error
            yield item, result  # pyright: ignore[reportReturnType]
    except BaseException as error:
        stop.set()
        until = time.monotonic() + patience(error, sum(thread.is_alive() for thread in crew))
        for thread in crew:
            thread.join(max(until - time.monotonic(), 0))
        raise
