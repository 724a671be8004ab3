"""A small town of real processes: etcd, replicas, SDK clients that serve and call. Built, hurt, and cleared away."""
