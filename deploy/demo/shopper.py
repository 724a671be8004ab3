"""The shopper: places orders and looks at them, at a steady rate, through the SDK. ``python -m deploy.demo.shopper RATE``.

Open loop: the next call is made when it is due, whether earlier ones were answered or not. What became of the calls is
written to standard output, a JSON list of calls a line.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import httpx
from trimtab import Mesh

from deploy.demo.traffic import Call

ITEMS = ("teapot", "lamp", "chair")
TIMEOUT = 2.0
REPORT_INTERVAL = 0.05
# Calls that may wait at the same time: all of a second's calls at the default rate.
THREADS = 200


class Shopper:
    """Makes calls and remembers what became of them."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._known: deque[int] = deque(maxlen=1000)
        self._calls: deque[Call] = deque()

    def shop(self, number: int, intended: float) -> None:
        """Make one call: an even number orders, an odd one looks an order up."""
        began = time.monotonic()
        discount, error, tried = None, "", []
        try:
            answer = self._order() if number % 2 == 0 or not self._known else self._look_up()
            tried = answer.extensions["trimtab"].attempts
            discount = answer.raise_for_status().json()["discount"] if answer.request.method == "POST" else None
            answer.raise_for_status()
        except httpx.HTTPError as failure:
            error = f"{type(failure).__name__}: {failure}"
            trace = getattr(failure, "trimtab", None)
            tried = trace.attempts if trace else tried
        names = [attempt.endpoint.id for attempt in tried]
        self._calls.append(Call(intended, began, time.monotonic(), not error, names, discount, error))

    def report(self) -> None:
        """Write what is new."""
        calls = [self._calls.popleft() for _ in range(len(self._calls))]
        sys.stdout.write(json.dumps(calls) + "\n")
        sys.stdout.flush()

    def _order(self) -> httpx.Response:
        answer = self._http.post("mesh://orders/orders", json={"item": random.choice(ITEMS)})
        if answer.is_success:
            self._known.append(answer.json()["id"])
        return answer

    def _look_up(self) -> httpx.Response:
        return self._http.get(f"mesh://orders/orders/{random.choice(self._known)}")


def main() -> None:
    """Shop until killed."""
    rate = float(sys.argv[1])
    # By load alone, so that equals get equal shares: by latency, as is built in, whoever is faster just now gets more.
    mesh = Mesh(name="shopper", algorithm="least_request")
    mesh.wait_ready("orders")
    shopper = Shopper(mesh.http_client(timeout=TIMEOUT))
    threading.Thread(target=_report, args=(shopper,), name="report", daemon=True).start()
    with ThreadPoolExecutor(THREADS) as pool:
        start = time.monotonic()
        for number in count():
            due = start + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(shopper.shop, number, due).add_done_callback(_give_up_on_error)


def _report(shopper: Shopper) -> None:
    while True:
        shopper.report()
        time.sleep(REPORT_INTERVAL)


def _give_up_on_error(call: Future[None]) -> None:
    """An error that is none of HTTP's is the demo's own: it must not look like a quiet shop."""
    error = call.exception()
    if error is not None:
        traceback.print_exception(error)
        os._exit(1)


if __name__ == "__main__":
    main()
