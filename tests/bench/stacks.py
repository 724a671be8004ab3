"""What people put together today for the same purpose, from the usual packages, set up as our policy in ``call_cost`` is.

Where a package leaves a choice, the cheaper way is taken. None of them picks an endpoint; that is ours alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pybreaker
import stamina
import tenacity
from aiolimiter import AsyncLimiter
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from purgatory import AsyncCircuitBreakerFactory

ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 3, 0.05, 1.0
FAILURES, OPEN_FOR = 20, 15
RATE = 1_000_000  # a second: high enough to refuse nothing
TOTAL, ATTEMPT = 3.0, 1.0  # seconds

Function = Callable[..., Any]


class Limited(Exception):
    """Beyond the rate."""


def blocking(function: Function) -> Function:
    """tenacity + pybreaker + limits. Nothing can end a blocking function early, here as with us."""
    breaker = pybreaker.CircuitBreaker(fail_max=FAILURES, reset_timeout=OPEN_FOR)
    limiter, rate = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(RATE)
    tried = tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_after_delay(TOTAL),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )(breaker(function))

    def call(*args: Any, **kwargs: Any) -> Any:
        if not limiter.hit(rate, "orders"):
            raise Limited
        return tried(*args, **kwargs)

    return call


def awaited(function: Callable[..., Awaitable[Any]]) -> Function:
    """stamina + purgatory + aiolimiter, and ``asyncio.timeout`` for each attempt."""
    limiter = AsyncLimiter(RATE, 1)
    guarded = AsyncCircuitBreakerFactory(default_threshold=FAILURES, default_ttl=OPEN_FOR)("orders")(function)

    @stamina.retry(on=ConnectionError, attempts=ATTEMPTS, timeout=TOTAL, wait_initial=FIRST_WAIT, wait_max=LONGEST_WAIT)
    async def tried(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(ATTEMPT):
            return await guarded(*args, **kwargs)

    async def call(*args: Any, **kwargs: Any) -> Any:
        async with limiter:
            return await tried(*args, **kwargs)

    return call
