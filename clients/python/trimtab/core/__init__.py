"""The SDK's pure part: algorithms and protocol without clock, chance, threads or I/O."""
