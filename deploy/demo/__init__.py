"""An online shop's order service under failure: what a newcomer watches. ``python -m deploy.demo``, or ``make demo``."""
