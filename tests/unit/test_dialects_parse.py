import json

import pytest

from rerank_server.dialects.parse import COUNTED_FROM_BYTES, MAX_VALUES, read_object
from rerank_server.errors import BadRequest

LONG = COUNTED_FROM_BYTES


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"q"', b"\xff\xfe", b'{"query":"\\ud800"}', b'{"a":NaN}', b"[" * 100_000],
)
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not a JSON object"):
        read_object(body)


def test_body_that_is_no_json_is_told_where_it_fails() -> None:
    with pytest.raises(BadRequest, match=r"not a JSON object \(.* at line 1 column 2\d\)"):
        read_object(b'{"query":"secret \\ud800 "}')


@pytest.mark.parametrize(
    "value", ["1,", "[],", "{},", '"",', '"\\\\",', '"\\"",', '"\\\\\\"",'], ids=str
)
def test_more_values_than_any_request_has_are_refused(value: str) -> None:
    count = max(MAX_VALUES, LONG // len(value)) + 1
    body = '{"documents":[' + value * count + "1]}"

    with pytest.raises(BadRequest, match="more than 100,000 values"):
        read_object(body.encode())


@pytest.mark.parametrize("text", [",[{", '"', "\\", '\\"', '",', '\\",["'])
def test_signs_in_texts_are_no_values(text: str) -> None:
    # Over several pieces, so that their borders fall between the two halves of an escape.
    found = {"query": "q", "documents": ["x" + text * 1_200_000, text]}

    assert read_object(json.dumps(found).encode()) == found
