"""The children of a RerankerService, as pure functions of its spec and the operator's settings."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.observed import Observed
from rerank_operator.resources.autoscaler import build_autoscaler
from rerank_operator.resources.deployment import build_deployment
from rerank_operator.resources.disruption_budget import build_disruption_budget
from rerank_operator.resources.network_policy import build_network_policy
from rerank_operator.resources.pod_monitor import build_pod_monitor
from rerank_operator.resources.service import build_service
from rerank_operator.resources.service_account import build_service_account
from rerank_operator.settings import Settings

_NOTHING = Observed()


def desired(
    reranker: RerankerService, settings: Settings, observed: Observed = _NOTHING
) -> list[Manifest]:
    """Return all children of `reranker`, in the order in which they are to be applied."""
    children = [
        build_service_account(reranker),
        # Before the pods that it closes.
        build_network_policy(reranker),
        build_service(reranker),
        build_disruption_budget(reranker),
        build_deployment(reranker, settings, observed),
        build_pod_monitor(reranker),
        build_autoscaler(reranker),
    ]
    return [child for child in children if child is not None]
