"""Envoy and proxyless gRPC, served from the same view. Its rooms are built with the xDS feature."""
