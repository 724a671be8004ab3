"""Trimtab's control plane: etcd holds the truth, replicas hold a view of it, clients follow it.

Rooms, from the outside in: ``app`` builds everything; ``cli``, ``rpc``, ``http`` and ``xds`` face people and programs;
``runtime`` is the I/O that drives ``core``; ``store`` keeps; ``core`` decides; ``errors`` names what can go wrong.
"""

__version__ = "0.1.0"
