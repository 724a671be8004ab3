"""Calling services by ``mesh://`` URLs, through httpx, httpx2 and requests.

``mesh://orders/v1/42`` names the service ``orders`` of the mesh's own namespace, ``mesh://orders.shop/v1/42`` the one of the
namespace ``shop``. The callee sees the name as it was written in its ``Host`` header, whichever endpoint serves the call.
"""
