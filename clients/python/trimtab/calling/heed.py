"""What a policy asks for in vain: said once, for an operator who wonders why nothing comes of it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import lru_cache

from trimtab.core.calling.pipeline import Pipeline

logger = logging.getLogger("trimtab")


def without(pipeline: Pipeline, how: str, sections: Collection[str]) -> None:
    """Calls through ``pipeline`` are made in a way (``how``, as "mesh.pick") that ``sections`` have no effect on."""
    fallbacks = pipeline.fallbacks
    asked = {
        "hedge": pipeline.hedged,
        "mirror": pipeline.mirroring,
        "fallback": fallbacks,
        "fallback.cache": fallbacks if fallbacks is not None and fallbacks.keeps else None,
    }
    for section in sections:
        if asked[section] is not None:
            _tell(pipeline.service, section, how)


@lru_cache(1024)
def _tell(service: str, section: str, how: str) -> None:
    logger.warning("policy.no_effect: %s: the %s section of its policy has no effect on %s", service, section, how)
