"""The model of a configuration file. A module of its own: most clients need no pydantic, and start sooner without."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Shop(BaseModel):
    greeting: str = "none"
    limit: int = Field(0, ge=0)
