"""gunicorn's configuration for a server that is one instance with all its workers."""

from trimtab.servers.gunicorn import mesh_instance

when_ready, on_exit = mesh_instance("orders", address="127.0.0.1", drain="1500ms")
