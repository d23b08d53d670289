"""A stand-in for the controllers and the kubelet of a cluster, for as much of one service as tests
need: what is deleted goes, and pods end up in the state that a test says.
"""

from apiserver.objects import Objects


class Controllers:
    """Does for one service, when it is told to, what a cluster would do by itself."""

    def __init__(self, service: Objects) -> None:
        self._service = service
        self._plane = service.plane

    def sweep(self) -> None:
        """Let go of volumes that are being deleted, and of pods whose Job is gone."""
        claims = self._service.children["PersistentVolumeClaim"]
        if "deletionTimestamp" in self._plane.get(claims).get("metadata", {}):
            self._plane.patch(claims, {"metadata": {"finalizers": None}})
        jobs = {f"{job['metadata']['name']}-pod" for job in self._service.jobs()}
        pods = f"/api/v1/namespaces/{self._service.namespace}/pods"
        for pod in self._plane.get(pods)["items"]:
            if pod["metadata"]["name"] not in jobs:
                self._plane.delete(f"{pods}/{pod['metadata']['name']}?gracePeriodSeconds=0")

    def report(self, ready: int) -> None:
        """Have the Deployment's pods there, so many of them ready, if there is a Deployment."""
        if deployment := self._service.child("Deployment"):
            wanted = deployment["spec"]["replicas"]
            ready = min(ready, wanted)
            self._service.report_pods(
                replicas=wanted,
                updatedReplicas=wanted,
                readyReplicas=ready,
                availableReplicas=ready,
            )

    def download(self, succeeds: bool) -> None:
        """Have the newest Job's pod end, if there is a Job, and what it takes to start the pod."""
        if not self._service.jobs() or not self._service.child("ServiceAccount"):
            return
        if succeeds:
            self._service.finish_download()
        else:
            self._service.run_job({"terminated": {"exitCode": 1, "message": "forbidden (403)"}})
