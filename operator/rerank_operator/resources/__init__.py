"""The children of a RerankerService, as pure functions of its spec and the operator's settings."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.resources.deployment import build_deployment
from rerank_operator.resources.service import build_service
from rerank_operator.resources.service_account import build_service_account
from rerank_operator.settings import Settings


def desired(reranker: RerankerService, settings: Settings) -> list[Manifest]:
    """Return all children of `reranker`, in the order in which they are to be applied."""
    return [
        build_service_account(reranker),
        build_service(reranker),
        build_deployment(reranker, settings),
    ]
