"""The keeping of truth: a port, its implementations on etcd and in memory, and the codec between records and keys."""
