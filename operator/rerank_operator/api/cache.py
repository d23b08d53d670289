"""`spec.cache`: a volume that keeps the model, filled before the pods start."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rerank_operator.api.schema import ApiModel, Quantity, dns_name, rule, rules

DEFAULT_SIZE = "20Gi"
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]


class Cache(ApiModel):
    """A volume that keeps the model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.existingClaim) || "
                "!(has(self.size) || has(self.storageClassName) || has(self.accessModes))",
                "cache.existingClaim is set beside size, storageClassName or accessModes, which "
                "are for a claim that the operator makes: leave them out, or existingClaim",
                "'cache.existingClaim is ' + self.existingClaim + ', beside size, storageClassName "
                "or accessModes, which are for a claim that the operator makes: leave them out, or "
                "existingClaim'",
            ),
            rule(
                "!has(self.size) || quantity(string(self.size)).isGreaterThan(quantity('0'))",
                "cache.size is 0: write how much the models need, such as 20Gi",
            ),
        )
    )

    size: Annotated[
        Quantity | None,
        Field(
            description="What the volume has to hold: the model, and for a while the one before it "
            f"when it is changed. It can be raised, where the StorageClass can; a smaller value "
            f"than that of an existing volume changes nothing. Unset: {DEFAULT_SIZE}."
        ),
    ] = None
    storage_class_name: Annotated[
        str | None,
        Field(
            max_length=253,
            description="StorageClass of the volume. It cannot be changed while the claim is "
            "there. Unset: the cluster's default.",
        ),
        dns_name("cache.storageClassName"),
    ] = None
    access_modes: Annotated[
        list[AccessMode] | None,
        Field(
            min_length=1,
            max_length=2,
            description="ReadWriteMany for pods on several nodes. With ReadWriteOnce alone all "
            "pods that use the volume run on one node, and those for which it has no room wait. It "
            "cannot be changed while the claim is there. Unset: ReadWriteOnce.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    existing_claim: Annotated[
        str | None,
        Field(
            max_length=253,
            description="A PersistentVolumeClaim of the same namespace to use instead of one of "
            "the operator's. It is neither changed nor deleted. Several services may share "
            "one; unless it is ReadWriteMany, all of them run on one node.",
        ),
        dns_name("cache.existingClaim"),
    ] = None
    retain: Annotated[
        bool,
        Field(
            description="Keep the volume when the RerankerService or its `cache` goes; a service "
            "of the same name finds it again. False: it is deleted with it."
        ),
    ] = True
    prefetch: Annotated[
        bool,
        Field(
            description="Have a Job download the model; pods then start from the volume, without "
            "the hub and its token, and a changed model is rolled out once it is there. False: "
            "the pods download into the volume."
        ),
    ] = True
