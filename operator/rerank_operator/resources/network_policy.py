"""The NetworkPolicy: who may open a connection to the pods."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import HTTP_PORT, NETWORK_POLICIES, instance, selector
from rerank_operator.resources.metadata import build_metadata

# In a NetworkPolicy an absent namespaceSelector means the policy's own namespace.
SAME_NAMESPACE: list[Manifest] = [{"podSelector": {}}]


def build_network_policy(reranker: RerankerService) -> Manifest | None:
    """Return the policy; None unless it is asked for."""
    policy = reranker.spec.network_policy
    if not policy.enabled:
        return None
    return {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": NETWORK_POLICIES.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "podSelector": {"matchLabels": selector(instance(reranker.name))},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    # An empty list would let everybody in.
                    "from": [peer.manifest() for peer in policy.peers] or SAME_NAMESPACE,
                    "ports": [{"port": HTTP_PORT, "protocol": "TCP"}],
                }
            ],
        },
    }
