from __future__ import annotations

from tests.unit.http.house import api, connected, house, orders

__all__ = ["api", "connected", "house", "orders"]
