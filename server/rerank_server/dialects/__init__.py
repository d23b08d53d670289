"""Every form in which a ranking is asked for, by the path it comes to."""

from collections.abc import Mapping, Sequence

from rerank_server.dialects import jina
from rerank_server.dialects.body import About, Body, read_object, validate

# The first kind whose marks are all there is meant; the last one has none.
ROUTES: Mapping[str, Sequence[type[Body]]] = {
    "/v1/rerank": (jina.RerankRequest,),
    "/rerank": (jina.RerankRequest,),
}


def read(path: str, body: bytes) -> Body:
    """Read a request to one of ROUTES.

    Raises:
        BadRequest: the message names field, value and remedy.
    """
    found = read_object(body)
    kind = next(kind for kind in ROUTES[path] if kind.marks <= found.keys())
    return validate(kind, found)


__all__ = ["ROUTES", "About", "Body", "read"]
