"""The Service in front of the model servers."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import SERVICE_PORT, SERVICES, instance, selector
from rerank_operator.resources.metadata import build_metadata


def build_service(reranker: RerankerService) -> Manifest:
    """Return the one address that callers use."""
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(instance(reranker.name)),
            # `protocol` is part of the key by which server-side apply merges ports.
            "ports": [
                {"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}
            ],
        },
    }
