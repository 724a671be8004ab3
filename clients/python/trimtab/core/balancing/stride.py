"""The static stride scheduler: turns in proportion to weights, without a queue or any state but a sequence number.

Source: gRFC A58 and grpc/grpc ``static_stride_scheduler.cc``. The endpoint of index ``b`` is picked in ``w`` of 65535
generations: number ``seq`` stands for ``g = seq div n``, ``b = seq mod n``, and is skipped
if ``(w·g + b·32767) mod 65535 < 65535 − w``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_TOP = 65535
_OFFSET = 32767
# A weight counts as at most ten and at least a hundredth of the mean, which bounds the numbers that a pick skips.
_AT_MOST = 10.0
_AT_LEAST = 0.01


class StaticStride:
    """The next index for a sequence of numbers. A weight of 0 is one that is not known, and counts as the mean of the others."""

    __slots__ = ("_weights",)

    def __init__(self, weights: Sequence[float]) -> None:
        known = [weight for weight in weights if weight > 0]
        mean = sum(known) / len(known) if known else 1.0
        scale = _TOP / min(max(known, default=1.0), _AT_MOST * mean)
        middle = round(mean * scale)
        least = max(1, round(middle * _AT_LEAST))
        self._weights = [min(_TOP, max(least, round(weight * scale))) if weight > 0 else middle for weight in weights]

    def next(self, sequence: Iterator[int]) -> int:
        """Return the next index. Takes as many numbers of ``sequence`` as it needs. Raises ValueError when it ends."""
        weights = self._weights
        count = len(weights)
        for number in sequence:
            generation, index = divmod(number, count)
            weight = weights[index]
            if (weight * generation + index * _OFFSET) % _TOP >= _TOP - weight:
                return index
        raise ValueError("the sequence of a rotation must not end")
