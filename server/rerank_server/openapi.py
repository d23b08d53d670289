"""The OpenAPI description: what FastAPI cannot know of routes that read and write bytes."""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_type_hints

from pydantic import AliasChoices, TypeAdapter
from typing_extensions import TypedDict

from rerank_server.dialects import ROUTES, About, Body
from rerank_server.dialects.parse import validate
from rerank_server.dialects.service import RERANKER, models
from rerank_server.ranking import Scored

Json = dict[str, Any]

DESCRIPTION = """\
One reranker, in the forms that clients speak. Unknown fields are ignored, null means not given, and
any model name is served unless the server is strict. An error has its message under `error`,
`message` and `detail`, and its kind under `error_type`."""

SUMMARIES = {
    "/v1/rerank": "Rank documents: Jina, Cohere v1, Voyage, vLLM, TEI, or several queries",
    "/rerank": "The same as /v1/rerank",
    "/v2/rerank": "Rank documents: Cohere v2, vLLM",
    "/score": "Score pairs in the order of the request: vLLM",
    "/v1/score": "The same as /score",
}

ABOUT = About("rerank-5f0c3a", "Qwen3-Reranker-0.6B", 1_790_000_000)
# In examples the last document is the one that answers the query.
BEST, OTHER = 4.6, -4.6
DOCUMENT_TOKENS = 80

# Of each kind of error, one.
MESSAGES = {
    "invalid_request": "top_n is 0: give a whole number of 1 or more, or leave it out for all "
    "documents",
    "blocked": "documents[3] has something in it that this service does not take",
    "unauthorized": "the token is missing or wrong: send the header Authorization: Bearer TOKEN",
    "model_not_found": f"the request names another model than {ABOUT.model}, the only one here: "
    "give that name, or leave model out",
    "request_timeout": "the body did not arrive within 60 s, the limit of a request: send a "
    "smaller one",
    "too_large": "the request has 2000 documents, and the limit is 1000: send them in several "
    "requests",
    "unsupported_encoding": "the header Content-Encoding is 'gzip': send the body uncompressed",
    "overloaded": "4090 query-document pairs wait already, and the limit is 4096: try again later",
    "rate_limited": "too many requests from one client: try again in 7 s",
    "internal_error": "internal error",
    "not_ready": "the model is loading: try again later",
    "deadline_exceeded": "the 2 s that the request gives have passed with 40 of 100 documents "
    "left: send fewer, or give more time",
}

RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds that the caller waits: what takes longer is refused, at once if that "
    "can be foreseen.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}

STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
METRICS = """\
# HELP rerank_queue_depth Query-document pairs waiting or running.
# TYPE rerank_queue_depth gauge
rerank_queue_depth 12.0
"""
# Schemas of routes that FastAPI cannot see through, and examples.
SERVICE: Mapping[tuple[str, int], Json] = {
    ("/v1/models", 200): {"example": models(ABOUT.model, ABOUT.created, 4096)},
    ("/info", 200): {
        "example": {
            "model_id": ABOUT.model,
            "model_sha": "6e9e69830b95c52b5fd889b7690dda3329508de3",
            "model_dtype": "auto",
            "model_type": RERANKER,
            "max_input_length": 4096,
            "max_client_batch_size": 1000,
            "auto_truncate": True,
            "version": "0.1.0",
        }
    },
    ("/health", 200): {"schema": STATUS, "example": {"status": "OK"}},
    ("/health", 503): {
        "schema": STATUS,
        "example": {"status": "DEAD", "reason": "the engine has died"},
    },
    ("/ready", 200): {"schema": STATUS, "example": {"status": "READY", "model": ABOUT.model}},
    ("/ready", 503): {
        "schema": STATUS,
        "example": {"status": "NOT_READY", "reason": "the model is loading"},
    },
    ("/metrics", 200): {"schema": {"type": "string"}, "example": METRICS},
}


class Error(TypedDict):
    """A request that was not served: the same sentence under each key that some client reads."""

    error: str
    error_type: str
    message: str
    detail: str


def complete(document: Json, failures: Sequence[tuple[int, str]]) -> Json:
    """Add bodies, answers, errors and examples to FastAPI's description of the application.

    `failures` are the statuses that a request may be refused with, each with its `error_type`.
    """
    schemas, definitions = _schemas()
    errors = _errors(failures)
    for path, kinds in ROUTES.items():
        bodies = dict(_examples(kinds))
        answers = {name: _answer(body) for name, body in bodies.items()}
        document["paths"][path]["post"] |= {
            "operationId": path.strip("/").replace("/", "_"),
            "summary": SUMMARIES[path],
            "tags": ["Ranking"],
            "parameters": [TIMEOUT],
            "requestBody": {
                "required": True,
                "content": _content(
                    [schemas[kind] for kind in kinds],
                    {name: body.examples[name] for name, body in bodies.items()},
                ),
            },
            "responses": {
                "200": {
                    "description": "Scores, in the form of the request.",
                    "content": _content([schemas[_answer_type(kind)] for kind in kinds], answers),
                },
                **{code: {"$ref": f"#/components/responses/{code}"} for code in errors},
            },
        }
    for (path, status), content in SERVICE.items():
        operation = document["paths"][path]["get"]
        media_type = "text/plain" if path == "/metrics" else "application/json"
        known = operation["responses"].get(str(status), {}).get("content", {})
        operation["tags"] = ["Service"]
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {media_type: known.get(media_type, {}) | content},
        }
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions)
    components["responses"] = errors
    # A server without tokens takes any, or none.
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"token": []}]
    return document


def _schemas() -> tuple[dict[Any, Json], Json]:
    """Return a reference to each type of body and answer, and what they refer to."""
    kinds = list(dict.fromkeys(kind for kinds in ROUTES.values() for kind in kinds))
    types = [*kinds, *map(_answer_type, kinds), Error]
    found, more = TypeAdapter.json_schemas(
        [(number, "validation", TypeAdapter(type_)) for number, type_ in enumerate(types)],
        ref_template="#/components/schemas/{model}",
    )
    definitions = more["$defs"]
    for kind in kinds:
        definitions[kind.__name__] = _with_other_names(kind, definitions[kind.__name__])
    return {types[number]: schema for (number, _), schema in found.items()}, definitions


def _with_other_names(kind: type[Body], schema: Json) -> Json:
    """Describe a field under each of its names; pydantic does so under the first alone."""
    properties = dict(schema["properties"])
    required = list(schema.get("required", ()))
    either = []
    for info in kind.model_fields.values():
        match info.validation_alias:
            case AliasChoices(choices=[first, *others]):
                description = f"another name for {first}"
                properties |= {
                    name: {**properties[first], "description": description} for name in others
                }
                if first in required:
                    required.remove(first)
                    either.append({"anyOf": [{"required": [name]} for name in (first, *others)]})
    found = {**schema, "properties": properties, "required": required, "allOf": either}
    return {key: value for key, value in found.items() if value}


def _answer_type(kind: type[Body]) -> Any:
    return get_type_hints(kind.answer)["return"]


def _examples(kinds: Sequence[type[Body]]) -> Iterator[tuple[str, Body]]:
    # The last kind is the plainest, and the page shows the first example.
    for kind in reversed(kinds):
        for name, body in kind.examples.items():
            yield name, validate(kind, dict(body))


def _answer(body: Body) -> Any:
    counts = [len(ranking.documents) for ranking in body.rankings()]
    scored = [
        Scored([*[OTHER] * (count - 1), BEST], tokens=count * DOCUMENT_TOKENS) for count in counts
    ]
    return body.answer(scored, ABOUT)


def _content(schemas: Sequence[Json], examples: Mapping[str, Any]) -> Json:
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    named = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": {"schema": schema, "examples": named}}


def _errors(failures: Sequence[tuple[int, str]]) -> dict[str, Json]:
    """Describe the answers of each status, with an example of each kind."""
    found: dict[str, Json] = {}
    for status, kind in sorted(failures):
        phrase = HTTPStatus(status).phrase
        message = MESSAGES.get(kind, phrase)
        body = {"error": message, "error_type": kind, "message": message, "detail": message}
        schema = {"$ref": "#/components/schemas/Error"}
        response = {"description": phrase, "content": _content([schema], {})}
        if status in (429, 503):
            response["headers"] = RETRY_AFTER
        content = found.setdefault(str(status), response)["content"]
        content["application/json"]["examples"][kind] = {"value": body}
    return found
