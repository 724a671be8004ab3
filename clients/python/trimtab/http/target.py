"""What a ``mesh://`` URL names, and the URLs that stand for it on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

SCHEME = "mesh"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Target(NamedTuple):
    """A service, and its namespace when the URL says one (None: the mesh's own)."""

    service: str
    namespace: str | None = None

    def __str__(self) -> str:
        return self.service if self.namespace is None else f"{self.service}.{self.namespace}"


@lru_cache(maxsize=1024)
def parse_target(authority: str) -> Target:
    """The service that the authority of a ``mesh://`` URL names: ``SERVICE`` or ``SERVICE.NAMESPACE``.

    Raises ValueError, with the place and the way out, for a port or anything else that names no service.
    """
    # Clients have turned user and password into a header already.
    authority = authority.rpartition("@")[2]
    if ":" in authority:
        raise ValueError(f"mesh://{authority}: a mesh URL has no port; the endpoint that is picked has one")
    labels = authority.lower().split(".")
    if len(labels) > 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"mesh://{authority}: expected mesh://SERVICE/… or mesh://SERVICE.NAMESPACE/…")
    return Target(labels[0], labels[1] if len(labels) == 2 else None)


def endpoint_scheme(metadata: Mapping[str, str], override: str | None) -> str:
    """``http`` or ``https``: what the client insists on, else what the instance says of itself, else ``http``."""
    return override or ("https" if metadata.get("scheme") == "https" else "http")


def mesh_location(location: str, url: str) -> str:
    """The ``Location`` of an answer to ``url`` (a mesh URL), so that following it stays in the mesh.

    Servers build absolute redirects from the Host header, as ``http://orders/v1/``, which names nothing outside of the
    mesh. A redirect to another host is left alone, and so is what is no URL: the library says so to who follows it.
    """
    authority = urlsplit(url).netloc.rpartition("@")[2]
    try:
        # urljoin knows http, not mesh: resolve there and come back.
        resolved = urlsplit(urljoin(urlunsplit(urlsplit(url)._replace(scheme="http")), location))
    except ValueError:
        return location
    if resolved.scheme in ("http", "https") and resolved.netloc.lower() == authority.lower():
        return urlunsplit(resolved._replace(scheme=SCHEME))
    return location
