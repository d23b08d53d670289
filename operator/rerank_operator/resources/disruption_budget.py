"""The PodDisruptionBudget: how many pods a node drain may take at once."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import DISRUPTION_BUDGETS, VOLUME_LABEL, instance, selector
from rerank_operator.observed import Observed
from rerank_operator.resources.cache import Found, has_one_node
from rerank_operator.resources.metadata import build_metadata


def build_disruption_budget(
    reranker: RerankerService, observed: Observed, found: Found | None
) -> Manifest | None:
    """Return the budget; None where with it a node could never be drained.

    That is the node of a single pod, and the one that holds all pods because of a volume: a pod in
    place of the first would have no other node to go to while the second is there. Pods from before
    the volume may still be anywhere.
    """
    scaling = reranker.spec.autoscaling
    if has_one_node(reranker, found) and _has_volume(observed):
        return None
    if max(reranker.spec.replicas, scaling.max_replicas if scaling else 0) < 2:
        return None
    return {
        "apiVersion": DISRUPTION_BUDGETS.api_version,
        "kind": DISRUPTION_BUDGETS.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "maxUnavailable": 1,
            # Pods that do not serve anyway must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(instance(reranker.name))},
        },
    }


def _has_volume(observed: Observed) -> bool:
    """Tell whether the pods that are there, if any, stand by the volume's term."""
    if observed.deployment is None:
        return True
    labels = observed.deployment["spec"]["template"].get("metadata", {}).get("labels", {})
    return VOLUME_LABEL in labels
