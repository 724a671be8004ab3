"""gRPC served over HTTP/2 on the event loop itself: what is pushed is written to the socket in one step.

``frames`` what is on the wire · ``headers`` metadata and statuses · ``connection`` one socket: frames, windows, calls ·
``call`` one RPC, with the context that handlers see · ``server`` ports, methods, keepalive.
"""
