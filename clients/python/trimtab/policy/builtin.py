"""What holds for a call of which no document says anything."""

from __future__ import annotations

from trimtab.policy.sections import Balance, Outlier, Retry, Sections, Timeout, TokenThrottle

# A service that hangs is not waited for without end; what is safe is tried again within a small budget; calls go where it
# is fast, and not to endpoints that fail. Everything else is asked for in a document.
BUILT_IN = Sections(
    timeout=Timeout(total=15.0),
    priority="normal",
    balance=Balance(),
    outlier=Outlier(),
    retry=Retry(throttle=TokenThrottle()),
)
