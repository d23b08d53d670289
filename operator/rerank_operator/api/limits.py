"""`spec.limits`: what clients may ask of the servers."""

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from rerank_operator.api.schema import ApiModel, Matches


def _network(text: str) -> str:
    ip_network(text, strict=False)
    return text


Network = Annotated[
    str, Field(max_length=43, json_schema_extra={"format": "cidr"}), AfterValidator(_network)
]


# The server gets them one per line, and takes spaces around one away.
_INSIDE = r"[^\x00-\x1f\x7f-\x9f]"
_OUTSIDE = r"[^\s\x00-\x1f\x7f-\x9f]"
PATTERN = f"^{_OUTSIDE}({_INSIDE}*{_OUTSIDE})?$"


class Limits(ApiModel):
    """What one request may bring (over it: 413, naming the limit), and how much may come in."""

    max_documents: Annotated[
        int, Field(ge=1, le=100_000, description="Documents of one request.")
    ] = 1000
    max_document_chars: Annotated[
        int, Field(ge=1, le=100_000_000, description="Characters of one document.")
    ] = 100_000
    max_query_chars: Annotated[
        int, Field(ge=1, le=1_000_000, description="Characters of the query; of the instruction.")
    ] = 20_000
    max_body_bytes: Annotated[
        int, Field(ge=1024, le=1_073_741_824, description="Bytes of a request's body.")
    ] = 16_777_216
    max_queued_pairs: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="Query-document pairs that may wait or run in one pod. Over it requests "
            "are answered with 429 and Retry-After.",
        ),
    ] = 4096
    requests_per_minute_per_client: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000_000,
            description="Requests of one client address (IPv6: one /64), counted by each pod for "
            "itself; over it: 429. Unset: no limit.",
        ),
    ] = None
    trusted_proxies: Annotated[
        list[Network],
        Field(
            max_length=64,
            description="Networks of proxies whose X-Forwarded-For is believed, as 10.0.0.0/8. "
            "Empty: a client is who opened the connection.",
        ),
    ] = Field(default_factory=list)
    blocked_patterns: Annotated[
        list[
            Annotated[
                str,
                Field(min_length=1, max_length=256),
                Matches("a pattern", PATTERN, "write it in one line, without spaces around it"),
            ]
        ],
        Field(
            max_length=64,
            description="Regular expressions, in the syntax of Python's regex package. A request "
            "is refused with 400 if one is found in its query, instruction or documents. An "
            "expression that is none shows as CrashLooping.",
        ),
    ] = Field(default_factory=list)
    truncate: Annotated[
        bool,
        Field(
            description="Cut documents that are longer than engine.maxModelLen, and say so in the "
            "answer. False: refuse them."
        ),
    ] = True
