"""`spec.auth`, `spec.ui`, `spec.networkPolicy`, `spec.monitoring`: who may reach the servers."""

from typing import Annotated

from pydantic import ConfigDict, Field

from rerank_operator.api.labels import (
    RESERVED_LABELS,
    LabelSelector,
    LabelValue,
    MapKey,
    reserved_keys,
)
from rerank_operator.api.schema import ApiModel, Rules, SecretKey, rule, rules


class Auth(ApiModel):
    """Who may call."""

    token_secret_ref: Annotated[
        SecretKey | None,
        Field(
            description="Where the token is that requests must bring as `Authorization: Bearer`, "
            "except to /health, /ready, /metrics and /ui. Several, one per line, are all let in, "
            "so that a new one can come before the old one goes. It is read when a pod starts: "
            "after a change, `kubectl rollout restart deployment/NAME`. Unset: everybody may call."
        ),
    ] = None


class Ui(ApiModel):
    """A page for people."""

    enabled: Annotated[
        bool,
        Field(
            description="Serve a page at /ui, on which people can try the service: `kubectl "
            "port-forward service/NAME 8080:80` brings it to http://localhost:8080/ui. It asks "
            "for a token where auth does."
        ),
    ] = False


class AddressBlock(ApiModel):
    """Addresses outside the cluster."""

    cidr: Annotated[
        str,
        Field(
            max_length=43,
            description="A network, such as 10.0.0.0/8.",
            json_schema_extra={"format": "cidr"},
        ),
    ]
    excluded: Annotated[
        list[Annotated[str, Field(max_length=43, json_schema_extra={"format": "cidr"})]],
        Field(alias="except", max_length=16, description="Parts of it that are left out."),
    ] = Field(default_factory=list)


class Peer(ApiModel):
    """Who is let in: pods and namespaces, or addresses; as in a NetworkPolicy."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
                "an entry of networkPolicy.from names nobody, or pods and addresses at once: write "
                "ipBlock alone, or podSelector, namespaceSelector or both",
            )
        )
    )

    pod_selector: Annotated[
        LabelSelector | None,
        Field(description="Pods, of this namespace unless namespaceSelector names others."),
    ] = None
    namespace_selector: Annotated[
        LabelSelector | None, Field(description="Namespaces, by their labels.")
    ] = None
    ip_block: Annotated[AddressBlock | None, Field(description="Addresses.")] = None


class NetworkPolicy(ApiModel):
    """Closes the servers to all but some callers, where the cluster's network enforces policies."""

    enabled: Annotated[bool, Field(description="Have a NetworkPolicy.")] = False
    peers: Annotated[
        list[Peer],
        Field(
            alias="from",
            max_length=32,
            description="Who may reach the pods' one port. Name those that read metrics, too, such "
            "as the namespaces of Prometheus and KEDA. Empty: pods of the same namespace.",
        ),
    ] = Field(default_factory=list)


class Monitoring(ApiModel):
    """How Prometheus finds the pods."""

    pod_monitor: Annotated[
        bool,
        Field(
            description="Have a PodMonitor for the Prometheus operator. Without that operator's "
            "CustomResourceDefinition the condition Monitored says so, and the rest goes on."
        ),
    ] = False
    labels: Annotated[
        dict[MapKey, LabelValue],
        Field(
            max_length=32,
            description="Labels of the PodMonitor, by which your Prometheus picks it, such as "
            "release: kube-prometheus-stack.",
        ),
        Rules(reserved_keys("monitoring.labels", *RESERVED_LABELS)),
    ] = Field(default_factory=dict)
