"""How pods of a new template take the place of the old ones."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.observed import Observed, down_in_place, is_placed, is_rolled_out, is_rolling


def build_strategy(reranker: RerankerService, observed: Observed) -> Manifest:
    """Return the strategy of the Deployment.

    The two numbers are never both 0, which the API server refuses. A change of them alone replaces
    no pod.
    """
    down = _most_down(reranker, observed)
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0 if down else 1, "maxUnavailable": down},
    }


def _most_down(reranker: RerankerService, observed: Observed) -> int:
    """Return how many of the wanted pods a rollout may do without; 0: it surges.

    In place it does without one of those that have a node. Those that have none count on top:
    they would else use up what may be down, and no old pod would ever make room.

    That a rollout was switched is known from the strategy that the Deployment has, so that it
    stays switched until all pods serve, also for an operator that was restarted meanwhile.
    """
    mode, wanted, deployment = reranker.spec.rollout, reranker.spec.replicas, observed.deployment
    if mode == "Surge":
        return 0
    if deployment is None:
        return 1 if mode == "InPlace" else 0
    down = down_in_place(deployment)
    if down and is_rolling(deployment):
        # As many serve as before, however many are wanted by now.
        down += wanted - int(deployment["spec"]["replicas"])
    elif mode == "InPlace" or observed.short or (down and not is_rolled_out(deployment, wanted)):
        down = 1 + wanted - sum(map(is_placed, observed.pods))
    else:
        return 0
    return max(1, min(down, wanted))
