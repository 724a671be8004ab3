"""The admin API over HTTP: reads of the view, writes through the operations, watches, probes and metrics.

``api`` builds the application; ``gate`` stands before it (request ids, access, bounds, last resort); ``problem`` is the one
place where a refusal becomes an HTTP answer. ``catalogue``, ``configs``, ``policies`` and ``fleet`` hold the routes,
``models`` their shapes, ``presentation`` and ``explanation`` what an operator is shown and why, ``watch`` the event streams.
"""
