"""The children of a RerankerService, as pure functions of its spec and the operator's settings."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.observed import Observed
from rerank_operator.resources.autoscaler import build_autoscaler
from rerank_operator.resources.cache import Found, build_claim, prefetches
from rerank_operator.resources.deployment import build_deployment
from rerank_operator.resources.disruption_budget import build_disruption_budget
from rerank_operator.resources.download import build_job
from rerank_operator.resources.network_policy import build_network_policy
from rerank_operator.resources.pod_monitor import build_pod_monitor
from rerank_operator.resources.service import build_service
from rerank_operator.resources.service_account import build_service_account
from rerank_operator.settings import Settings

_NOTHING = Observed()


def desired(
    reranker: RerankerService,
    settings: Settings,
    observed: Observed = _NOTHING,
    found: Found | None = None,
) -> list[Manifest]:
    """Return all children of `reranker`, in the order in which they are to be applied.

    Without `found`: those of a service whose volume is there, and empty.
    """
    children = [
        build_service_account(reranker),
        build_claim(reranker, found.claim if found else None),
        _job(reranker, settings, found),
        # Before the pods that it closes.
        build_network_policy(reranker),
        build_service(reranker),
        build_disruption_budget(reranker, observed, found),
        _deployment(reranker, settings, observed, found),
        build_pod_monitor(reranker),
        build_autoscaler(reranker),
    ]
    return [child for child in children if child is not None]


def _job(reranker: RerankerService, settings: Settings, found: Found | None) -> Manifest | None:
    wanted = prefetches(reranker) if found is None else found.downloads
    return build_job(reranker, settings, found) if wanted else None


def _deployment(
    reranker: RerankerService, settings: Settings, observed: Observed, found: Found | None
) -> Manifest | None:
    """Return the Deployment; while a model is downloaded with the pods that it has, or none."""
    wanted = build_deployment(reranker, settings, observed, found)
    if found is None or not found.waits:
        return wanted
    if observed.deployment is None:
        return None
    # As the API server holds it, with all defaults: the pods stay, and their number follows.
    template = observed.deployment["spec"]["template"]
    return wanted | {"spec": wanted["spec"] | {"template": template}}
