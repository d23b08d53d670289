"""The variables of the server container; the RERANK_* part is its contract with the server."""

import json
from collections.abc import Mapping
from ipaddress import ip_network

from rerank_operator.api import Manifest, RerankerService, SecretKey
from rerank_operator.names import HTTP_PORT
from rerank_operator.resources.cache import HOME, PATH, is_directory, starts_offline


def build_variables(reranker: RerankerService, revision: str | None = None) -> list[Manifest]:
    """Return the `env` of a server: the operator's own variables, then the user's.

    `revision` is the commit that was downloaded for it; without one, what is asked for.
    """
    plain = environment(reranker)
    if revision is not None:
        plain["RERANK_REVISION"] = revision
    return _variables(reranker, plain, secret_environment(reranker))


def build_download_variables(reranker: RerankerService) -> list[Manifest]:
    """Return the `env` of the container that downloads the model."""
    return _variables(reranker, download_environment(reranker), _hub_secret(reranker))


def _variables(
    reranker: RerankerService, plain: Mapping[str, str], secret: Mapping[str, SecretKey]
) -> list[Manifest]:
    own = [
        # Kubernetes puts other variables in place of $(NAME) in a value; "$$" stands for "$".
        {"name": name, "value": plain[name].replace("$", "$$")}
        if name in plain
        else {"name": name, "valueFrom": {"secretKeyRef": secret[name].model_dump()}}
        for name in sorted([*plain, *secret])
    ]
    # The schema refuses our names; an object from before it knew one must still give a valid pod.
    theirs = [
        variable.manifest()
        for variable in reranker.spec.pod_template.env
        if variable.name not in {*plain, *secret}
    ]
    return own + theirs


def environment(reranker: RerankerService) -> dict[str, str]:
    """Return all variables but those whose values are in Secrets."""
    spec = reranker.spec
    values: dict[str, str | int | float | bool | None] = {
        "RERANK_MODEL": spec.model.name,
        "RERANK_REVISION": spec.model.revision,
        "RERANK_SERVED_NAME": spec.model.served_name,
        "RERANK_STRICT_MODEL_NAME": spec.model.strict_name,
        "RERANK_FAMILY": spec.model.family,
        "RERANK_TRUST_REMOTE_CODE": spec.model.trust_remote_code,
        "RERANK_DTYPE": spec.engine.dtype,
        "RERANK_QUANTIZATION": spec.engine.quantization,
        "RERANK_MAX_MODEL_LEN": spec.engine.max_model_len,
        "RERANK_TENSOR_PARALLEL_SIZE": spec.engine.tensor_parallel_size,
        "RERANK_ENGINES_PER_GPU": spec.engine.engines_per_gpu,
        "RERANK_GPU_MEMORY_UTILIZATION": spec.engine.gpu_memory_utilization,
        "RERANK_ENFORCE_EAGER": spec.engine.enforce_eager,
        "RERANK_INSTRUCTION": spec.engine.instruction,
        "RERANK_SCORE_CHECK": spec.engine.score_check,
        "RERANK_ENGINE_ARGS": _json(spec.engine.extra_args),
        "RERANK_MAX_DOCUMENTS": spec.limits.max_documents,
        "RERANK_MAX_DOCUMENT_CHARS": spec.limits.max_document_chars,
        "RERANK_MAX_QUERY_CHARS": spec.limits.max_query_chars,
        "RERANK_MAX_BODY_BYTES": spec.limits.max_body_bytes,
        "RERANK_MAX_QUEUED_PAIRS": spec.limits.max_queued_pairs,
        "RERANK_REQUESTS_PER_MINUTE_PER_CLIENT": spec.limits.requests_per_minute_per_client,
        # Go, and so the schema, takes 10.1.2.3/8 for a network; Python takes 10.0.0.0/8 only.
        "RERANK_TRUSTED_PROXIES": ",".join(
            str(ip_network(text, strict=False)) for text in spec.limits.trusted_proxies
        ),
        "RERANK_BLOCKED_PATTERNS": "\n".join(spec.limits.blocked_patterns),
        "RERANK_TRUNCATE": spec.limits.truncate,
        "RERANK_UI": spec.ui.enabled,
        "RERANK_HOST": "0.0.0.0",
        "RERANK_PORT": HTTP_PORT,
        "RERANK_DRAIN_SECONDS": spec.drain_seconds,
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "PYTHONUTF8": 1,
        # Workers of one pod find each other here; the pod's address is not always known to it.
        "VLLM_HOST_IP": "127.0.0.1",
    }
    if starts_offline(reranker):
        # Without it the hub is asked about a directory, and a node without a route waits for it.
        values["HF_HUB_OFFLINE"] = 1
    else:
        values["HF_ENDPOINT"] = spec.model.hub_endpoint
        values["HF_HUB_DISABLE_TELEMETRY"] = 1
    if spec.cache is not None and not is_directory(reranker):
        values["HF_HUB_CACHE"] = PATH
    return _texts(values)


def download_environment(reranker: RerankerService) -> dict[str, str]:
    """Return the variables of the downloader but the one whose value is in a Secret."""
    model = reranker.spec.model
    return _texts(
        {
            "RERANK_MODEL": model.name,
            "RERANK_REVISION": model.revision,
            "RERANK_TRUST_REMOTE_CODE": model.trust_remote_code,
            "RERANK_HOST": "0.0.0.0",
            "RERANK_PORT": HTTP_PORT,
            "HF_ENDPOINT": model.hub_endpoint,
            "HF_HUB_CACHE": PATH,
            "HF_HUB_DISABLE_TELEMETRY": 1,
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "PYTHONUTF8": 1,
        }
    )


def secret_environment(reranker: RerankerService) -> dict[str, SecretKey]:
    """Return the variables whose values the node reads from Secrets when it starts a pod."""
    reference = reranker.spec.auth.token_secret_ref
    own = {"RERANK_API_TOKEN": reference} if reference is not None else {}
    return own if starts_offline(reranker) else own | _hub_secret(reranker)


def _hub_secret(reranker: RerankerService) -> dict[str, SecretKey]:
    reference = reranker.spec.model.token_secret_ref
    return {"HF_TOKEN": reference} if reference is not None else {}


def _json(arguments: Mapping[str, object]) -> str:
    """Return "" for none."""
    return json.dumps(arguments, sort_keys=True) if arguments else ""


def _texts(values: Mapping[str, str | int | float | bool | None]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items() if value not in (None, "")}


def _text(value: str | int | float | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
