"""Serving in a mesh: register, get ready, report load, drain.

FastAPI and Starlette: ``trimtab.servers.fastapi``. Flask and any WSGI application: ``trimtab.servers.flask``. gunicorn with
several workers as one instance: ``trimtab.servers.gunicorn``. Any other program: ``python -m trimtab.run``.

Who is let in, by the policies of the service: ``trimtab.servers.asgi``, ``.wsgi`` and ``.grpc``.

Who registers, when a server has several processes on one port:

- ``trimtab run -- COMMAND`` and ``trimtab.servers.gunicorn`` register the server as *one* instance from outside of its workers,
  so that workers may come and go, and tell the workers by ``TRIMTAB_REGISTERED_BY`` not to register themselves.
- Without them each worker of a prefork server is an instance of its own on the shared port, with its process id in its id. The
  death of one takes nothing from the others, a host with more workers gets more traffic, and an operator drains each.
  gunicorn's HUP ends all old workers before the new ones are up: a service with a single server is then without an instance
  for as long as they take to start. Restart servers in turn by TERM, or register from outside.
"""
