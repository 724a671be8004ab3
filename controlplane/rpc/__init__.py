"""gRPC: the mesh stream, the unary registry, what replicas ask each other, health and reflection."""
