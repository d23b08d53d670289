"""Environment variables that the user adds to the server container."""

from typing import Annotated

from pydantic import ConfigDict, Field

from rerank_operator.api.schema import (
    ApiModel,
    EmptyIsUnset,
    Matches,
    ObjectName,
    cel_list,
    rule,
    rules,
)

# Every variable that the operator sets, at least for some objects.
RESERVED_VARIABLES = (
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HOME",
    "LANG",
    "PYTHONUTF8",
    "RERANK_API_TOKEN",
    "RERANK_BLOCKED_PATTERNS",
    "RERANK_DRAIN_SECONDS",
    "RERANK_DTYPE",
    "RERANK_ENFORCE_EAGER",
    "RERANK_ENGINES_PER_GPU",
    "RERANK_ENGINE_ARGS",
    "RERANK_FAMILY",
    "RERANK_GPU_MEMORY_UTILIZATION",
    "RERANK_HOST",
    "RERANK_INSTRUCTION",
    "RERANK_MAX_BODY_BYTES",
    "RERANK_MAX_DOCUMENTS",
    "RERANK_MAX_DOCUMENT_CHARS",
    "RERANK_MAX_MODEL_LEN",
    "RERANK_MAX_QUERY_CHARS",
    "RERANK_MAX_QUEUED_PAIRS",
    "RERANK_MODEL",
    "RERANK_PORT",
    "RERANK_QUANTIZATION",
    "RERANK_REQUESTS_PER_MINUTE_PER_CLIENT",
    "RERANK_REVISION",
    "RERANK_SCORE_CHECK",
    "RERANK_SERVED_NAME",
    "RERANK_STRICT_MODEL_NAME",
    "RERANK_TENSOR_PARALLEL_SIZE",
    "RERANK_TRUNCATE",
    "RERANK_TRUSTED_PROXIES",
    "RERANK_TRUST_REMOTE_CODE",
    "RERANK_UI",
    "VLLM_HOST_IP",
)


class KeyOfObject(ObjectName):
    """One value in a Secret or ConfigMap of the same namespace."""

    key: Annotated[
        str,
        Field(max_length=253, description="Which of its values."),
        Matches("key", r"^[-._a-zA-Z0-9]+$", "write letters, digits, '-', '_', '.'"),
    ]
    optional: Annotated[
        bool | None, Field(description="Start without it, if it is not there. Unset: wait for it.")
    ] = None


class PodField(ApiModel):
    """A field of the pod itself."""

    field_path: Annotated[
        str, Field(min_length=1, max_length=253, description="Such as metadata.name.")
    ]


class VariableSource(ApiModel):
    """Where a variable's value comes from: one of these."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)]"
                ".filter(there, there).size() == 1",
                "valueFrom holds no source, or several: write exactly one of secretKeyRef, "
                "configMapKeyRef and fieldRef",
            )
        )
    )

    secret_key_ref: Annotated[KeyOfObject | None, Field(description="A Secret's value.")] = None
    config_map_key_ref: Annotated[KeyOfObject | None, Field(description="A ConfigMap's value.")] = (
        None
    )
    field_ref: Annotated[PodField | None, Field(description="A field of the pod.")] = None


class Variable(ApiModel):
    """One environment variable; as in any container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!(self.name in {cel_list(RESERVED_VARIABLES)})",
                "podTemplate.env holds a variable that the operator sets: leave it out, and set "
                "the field of the spec that it comes from",
                "'podTemplate.env holds ' + self.name + ', which the operator sets: leave it out, "
                "and set the field of the spec that it comes from'",
            ),
            rule(
                "!(has(self.value) && has(self.valueFrom))",
                "a variable has both value and valueFrom: leave one of them out",
                "'podTemplate.env: ' + self.name + "
                "' has both value and valueFrom: leave one of them out'",
            ),
        )
    )

    name: Annotated[
        str,
        Field(max_length=128, description="Its name."),
        Matches(
            "name",
            r"^[-._a-zA-Z][-._a-zA-Z0-9]*$",
            "write letters, digits, '-', '_', '.', and no digit first",
        ),
    ]
    value: Annotated[
        str | None,
        Field(max_length=8192, description="Its value; $(NAME) stands for another variable."),
        EmptyIsUnset,
    ] = None
    value_from: Annotated[
        VariableSource | None, Field(description="Where its value comes from, instead.")
    ] = None
