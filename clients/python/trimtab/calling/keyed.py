"""The key of a call that is made without a function or a request that could hold one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.core.calling.pipeline import Pipeline


class _One(Mapping[str, Any]):
    """The arguments of a call that has but one, whatever its policy calls that."""

    def __init__(self, key: object) -> None:
        self._key = key

    def __getitem__(self, name: str) -> Any:
        return self._key

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def arguments_of(pipeline: Pipeline, key: object) -> Mapping[str, Any] | None:
    """The arguments of a call with this key, None where there is none, or no policy asks for one."""
    return _One(key) if pipeline.keyed and key is not None else None
