"""The model of a configuration file. A module of its own: most clients need no pydantic, and start sooner without."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class Shop(BaseModel):
    greeting: str = "none"
    limit: Annotated[int, Field(ge=0)] = 0
