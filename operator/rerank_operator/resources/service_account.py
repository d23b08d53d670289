"""The identity of the model servers, which grants nothing."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import SERVICE_ACCOUNTS
from rerank_operator.resources.metadata import build_metadata


def build_service_account(reranker: RerankerService) -> Manifest:
    """Return an account of the service's own, so that policies can name it."""
    return {
        "apiVersion": SERVICE_ACCOUNTS.api_version,
        "kind": SERVICE_ACCOUNTS.name,
        "metadata": build_metadata(reranker),
        "automountServiceAccountToken": False,
    }
