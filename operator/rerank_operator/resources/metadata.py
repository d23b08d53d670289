"""Name, namespace and labels: what all children have in common."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import instance, labels


def build_metadata(reranker: RerankerService) -> Manifest:
    """Return the metadata of a child. Ownership is added when it is applied."""
    name = instance(reranker.name)
    return {"name": name, "namespace": reranker.namespace, "labels": labels(name)}
