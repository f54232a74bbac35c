"""Asks a server's HTTP API again and again, as Prometheus and people do, and notes how long it took.

Both cores are busy with the server and its load, and what a question waits for a core is not time of the
server: the thread that asks stays off its core, and comes before the load on the other (as root, who may).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import threading
import time
from types import TracebackType
from typing import Any

from .load_generator import LoadFailed

METRICS = "/metrics"
PAGE = "/api/clients?limit=100&after="
EVERY_S = 0.5
NICE = -10


class Asker:
    """A context manager: asks for the metrics and for a page of clients, each twice a second, while entered.

    Args:
        port: of the server.
        key: an API key with the scope `read`.
        clients: how many the server must know of.
        core: where it runs: the load's.
    """

    def __init__(self, port: int, key: str, clients: int, core: int) -> None:
        self._core = core
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._clients = clients
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._enough = threading.Event()
        self._failure: Exception | None = None
        self.took_ms: dict[str, list[float]] = {METRICS: [], PAGE: []}

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._thread.join()
        self._connection.close()
        if self._failure is not None and kind is None:
            raise LoadFailed(f"the HTTP API: {self._failure}") from self._failure

    def summary(self) -> dict[str, Any]:
        """Milliseconds of both questions: median, slowest, and how many there were."""
        return {
            path.partition("?")[0]: {
                "median_ms": round(statistics.median(took), 2),
                "slowest_ms": round(max(took), 2),
                "asked": len(took),
            }
            for path, took in self.took_ms.items()
        }  # fmt: skip

    def _ask(self) -> None:
        after = ""
        thread = threading.get_native_id()
        os.sched_setaffinity(thread, {self._core})
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, NICE)
        try:
            while True:
                body = self._get(METRICS, "")
                if b"heartwire_clients " not in body:
                    raise LoadFailed("the metrics are not there")
                page = json.loads(self._get(PAGE, after))
                if len(page["clients"]) != 100 or page["total"] < self._clients:
                    raise LoadFailed(f"a page with {len(page['clients'])} of {page['total']} clients")
                after = page["next"] or ""
                if self._enough.wait(EVERY_S):
                    return
        except Exception as failure:
            self._failure = failure

    def _get(self, path: str, after: str) -> bytes:
        target = path + after if after else path.removesuffix("&after=")
        began = time.perf_counter()
        self._connection.request("GET", target, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        self.took_ms[path].append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise LoadFailed(f"{target} answered {answer.status}: {body[:200]!r}")
        return body
