"""Calls from many threads at once. Needs nothing but Python, as the core's own tests do."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_S = 120.0


def run_threads(*targets: Callable[[], object]) -> None:
    """Starts all at the same moment and waits for them; what one raises fails the test."""
    barrier = threading.Barrier(len(targets))
    errors: list[BaseException] = []

    def run(target: Callable[[], object]) -> None:
        barrier.wait()
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert errors == []
