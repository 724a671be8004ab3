"""etcd v3 over asyncio: one channel per member, failover, and watches that lose nothing."""

from controlplane.store.etcd.client import EtcdStore, open_store
from controlplane.store.etcd.options import EtcdOptions

__all__ = ["EtcdOptions", "EtcdStore", "open_store"]
