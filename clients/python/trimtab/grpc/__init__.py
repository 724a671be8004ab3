"""gRPC clients: ``mesh.grpc_channel("orders")`` is a channel that generated stubs take as any other.

gRPC for Python has neither resolver nor balancer to plug in. So this is a channel of its own kind, which keeps one ordinary
channel for each endpoint and decides for every call, and every further attempt of it, on which of them it goes.
"""
