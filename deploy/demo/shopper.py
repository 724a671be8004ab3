"""A shopper: places orders and looks around, at a steady rate, through the SDK. ``python -m deploy.demo.shopper NAME RATE``.

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

    def __init__(self, name: str, http: httpx.Client) -> None:
        self._name = name
        self._http = http
        self._known: deque[int] = deque(maxlen=1000)
        self._calls: deque[Call] = deque()

    def shop(self, number: int, intended: float) -> None:
        """Make one call: an even number orders; the odd ones look at an order or at the catalogue, by turns."""
        what = ("order", "look-up", "order", "catalogue")[number % 4] if self._known else "order"
        began = time.monotonic()
        discount, error, trace = None, "", None
        try:
            answer = self._ask(what)
            trace = answer.extensions["trimtab"]
            answer.raise_for_status()
            if what == "order":
                order = answer.json()
                discount = order["discount"]
                self._known.append(order["id"])
        except httpx.HTTPError as failure:
            error = f"{type(failure).__name__}: {failure}"
            trace = trace or getattr(failure, "trimtab", None)
        call = Call(
            self._name,
            what,
            intended,
            began,
            time.monotonic(),
            not error,
            [attempt.endpoint.id for attempt in trace.attempts] if trace else [],
            discount,
            error,
        )
        if trace:
            call = call._replace(policy=trace.policy, refused=trace.refused, fallback=trace.fallback, age=trace.age)
        self._calls.append(call)

    def report(self) -> None:
        """Write what is new."""
        calls = [self._calls.popleft() for _ in range(len(self._calls))]
        sys.stdout.write(json.dumps(calls) + "\n")
        sys.stdout.flush()

    def _ask(self, what: str) -> httpx.Response:
        if what == "order":
            return self._http.post("mesh://orders/orders", json={"item": random.choice(ITEMS)})
        if what == "look-up":
            return self._http.get(f"mesh://orders/orders/{random.choice(self._known)}")
        return self._http.get("mesh://orders/catalogue")


def main() -> None:
    """Shop until killed."""
    name, rate = sys.argv[1], float(sys.argv[2])
    # By load alone, so that equals get equal shares: by latency, as is built in, whoever is faster just now gets more.
    mesh = Mesh(name=name, algorithm="least_request")
    mesh.wait_ready("orders")
    shopper = Shopper(name, mesh.http_client(timeout=TIMEOUT))
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
