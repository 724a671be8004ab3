"""Whether the core of the SDK runs as C or as Python."""

from __future__ import annotations

from trimtab.core.calling import pipeline


def kind_of_core() -> str:
    """ "compiled" or "interpreted"."""
    return "interpreted" if str(pipeline.__file__).endswith(".py") else "compiled"
