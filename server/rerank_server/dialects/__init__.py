"""Every form in which a ranking is asked for, by the path it comes to."""

from collections.abc import Mapping, Sequence

from rerank_server.dialects.batch import BatchRequest
from rerank_server.dialects.body import About, Body
from rerank_server.dialects.cohere import CohereRequest
from rerank_server.dialects.jina import RerankRequest
from rerank_server.dialects.parse import read_object, validate
from rerank_server.dialects.score import ScoreRequest
from rerank_server.dialects.tei import TeiRequest

# The first kind whose marks are all there is meant; the last one has none.
ROUTES: Mapping[str, Sequence[type[Body]]] = {
    "/v1/rerank": (BatchRequest, TeiRequest, RerankRequest),
    "/rerank": (BatchRequest, TeiRequest, RerankRequest),
    "/v2/rerank": (CohereRequest,),
    "/score": (ScoreRequest,),
    "/v1/score": (ScoreRequest,),
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
