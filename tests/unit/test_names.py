import re

import pytest

from rerank_operator.names import instance


def test_short_dns_label_is_kept() -> None:
    assert instance("qwen3-search") == "qwen3-search"


@pytest.mark.parametrize("name", ["a.b", "3-small", "a" * 53, "a" * 253, "a-" * 26 + "a"])
def test_other_names_become_dns_labels(name: str) -> None:
    label = instance(name)

    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", label)


def test_long_names_that_share_a_prefix_stay_apart() -> None:
    assert instance("a" * 252 + "b") != instance("a" * 252 + "c")
