"""Benchmarks: each measures one promise beside a reference taken in the same run. ``python -m tests.bench [name …]``."""

import os

# Starting processes beside open channels is all we do; gRPC would tell so each time.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
