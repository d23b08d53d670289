"""Client libraries as they are published, against a server on a real socket."""

from collections.abc import Callable
from typing import Any

import cohere
import httpx
import infinity_client
import langchain_community.document_compressors.jina_rerank as langchain_jina
import litellm
import openai
import pytest
import voyageai
from haystack import Document as HaystackDocument
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from infinity_client.api.default import rerank as infinity_rerank
from infinity_client.models import RerankInput
from langchain_cohere import CohereRerank as LangChainCohere
from langchain_community.document_compressors import InfinityRerank
from langchain_core.documents import Document as LangChainDocument
from langchain_voyageai import VoyageAIRerank
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaIndexCohere
from llama_index.postprocessor.jinaai_rerank import JinaRerank as LlamaIndexJina
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.xinference_rerank import XinferenceRerank
from rerankers.models.api_rankers import APIRanker
from xinference_client.client.restful.restful_client import Client, RESTfulRerankModelHandle

DOCUMENTS = ["flour", "moon", "water"]
REASON = "query is blank: give the text to rank the"

# Texts and scores in the order of the answer.
Ranked = list[tuple[str, float]]
# Called with the server's address, the query and `top_n`; None: the library's own default.
Call = Callable[[str, str, int | None], Ranked]


def by_index(results: Any, score: str = "relevance_score") -> Ranked:
    """Read off results that are objects or dictionaries."""
    found = [result if isinstance(result, dict) else vars(result) for result in results]
    return [(DOCUMENTS[result["index"]], result[score]) for result in found]


def given(**options: Any) -> dict[str, Any]:
    """Leave out what is None: the library's own default is what is tested."""
    return {name: value for name, value in options.items() if value is not None}


def cohere_v1(url: str, query: str, top_n: int | None, key: str = "key") -> Ranked:
    client = cohere.Client(key, base_url=url)
    answer = client.rerank(model="m", query=query, documents=DOCUMENTS, **given(top_n=top_n))
    return by_index(answer.results)


def cohere_v2(url: str, query: str, top_n: int | None, key: str = "key") -> Ranked:
    client = cohere.ClientV2(key, base_url=url)
    answer = client.rerank(model="m", query=query, documents=DOCUMENTS, **given(top_n=top_n))
    return by_index(answer.results)


def voyage(url: str, query: str, top_n: int | None) -> Ranked:
    client = voyageai.Client(api_key="key", base_url=f"{url}/v1")
    answer = client.rerank(query, DOCUMENTS, model="m", **given(top_k=top_n))
    return [(result.document, result.relevance_score) for result in answer.results]


def infinity(url: str, query: str, top_n: int | None) -> Ranked:
    body = RerankInput(query=query, documents=DOCUMENTS, **given(top_n=top_n))
    answer = infinity_rerank.sync_detailed(client=infinity_client.Client(base_url=url), body=body)
    if answer.parsed is None:
        raise RuntimeError(answer.content.decode())
    return [(DOCUMENTS[result.index], result.relevance_score) for result in answer.parsed.results]


def xinference(url: str, query: str, top_n: int | None, key: str = "key") -> Ranked:
    handle = RESTfulRerankModelHandle("m", url, {"Authorization": f"Bearer {key}"})
    return by_index(handle.rerank(DOCUMENTS, query, **given(top_n=top_n))["results"])


def with_litellm(provider: str, base: str = "", **options: Any) -> Call:
    def call(url: str, query: str, top_n: int | None) -> Ranked:
        answer = litellm.rerank(
            model=f"{provider}/m",
            query=query,
            documents=DOCUMENTS,
            api_base=url + base,
            **given(top_n=top_n) | {"api_key": "key"} | options,
        )
        return by_index(answer.results)

    return call


def with_langchain(compressor: Callable[[str, dict[str, Any]], Any]) -> Call:
    def call(url: str, query: str, top_n: int | None) -> Ranked:
        documents = [LangChainDocument(text) for text in DOCUMENTS]
        found = compressor(url, given(top_n=top_n)).compress_documents(documents, query)
        return [(document.page_content, document.metadata["relevance_score"]) for document in found]

    return call


def langchain_cohere(url: str, options: dict[str, Any]) -> Any:
    return LangChainCohere(model="m", base_url=url, cohere_api_key="", **options)


def langchain_jina_rerank(url: str, options: dict[str, Any]) -> Any:
    # The library has no setting for it.
    langchain_jina.JINA_API_URL = f"{url}/v1/rerank"
    return langchain_jina.JinaRerank(jina_api_key="key", **options)


def langchain_infinity(url: str, options: dict[str, Any]) -> Any:
    return InfinityRerank(client=infinity_client.Client(base_url=url), model="m", **options)


def langchain_voyage(url: str, options: dict[str, Any]) -> Any:
    top_k = {"top_k": options["top_n"]} if options else {}
    return VoyageAIRerank(model="m", voyage_api_key="key", base_url=f"{url}/v1", **top_k)


def with_llama_index(postprocessor: Callable[[str, dict[str, Any]], Any]) -> Call:
    def call(url: str, query: str, top_n: int | None) -> Ranked:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
        # The default of some is 2.
        options = given(top_n=top_n or len(DOCUMENTS))
        found = postprocessor(url, options).postprocess_nodes(nodes, query_str=query)
        return [(node.text, node.score) for node in found]

    return call


def with_haystack(ranker: Callable[[str, dict[str, Any]], Any]) -> Call:
    def call(url: str, query: str, top_n: int | None) -> Ranked:
        documents = [HaystackDocument(content=text) for text in DOCUMENTS]
        found = ranker(url, given(top_k=top_n)).run(query=query, documents=documents)["documents"]
        return [(document.content, document.score) for document in found]

    return call


def haystack_cohere(url: str, options: dict[str, Any]) -> Any:
    ranker = CohereRanker(api_key=Secret.from_token("key"), api_base_url=url, **options)
    ranker.warm_up()
    return ranker


def haystack_jina(url: str, options: dict[str, Any]) -> Any:
    return JinaRanker(api_key=Secret.from_token("key"), base_url=f"{url}/v1/rerank", **options)


def with_rerankers(provider: str, path: str) -> Call:
    def call(url: str, query: str, top_n: int | None) -> Ranked:
        ranker = APIRanker("m", "key", provider, verbose=0, url=url + path)
        found = ranker.rank(query=query, docs=DOCUMENTS).results[:top_n]
        return [(result.document.text, result.score) for result in found]

    return call


# What says why the server refused a request.
SAYING: dict[str, Call] = {
    "cohere, v1": cohere_v1,
    "cohere, v2": cohere_v2,
    "voyageai": voyage,
    "infinity_client": infinity,
    "xinference-client": xinference,
    "litellm, cohere": with_litellm("cohere"),
    "litellm, jina_ai": with_litellm("jina_ai"),
    "litellm, voyage": with_litellm("voyage", "/v1"),
    "litellm, together_ai": with_litellm("together_ai"),
    "litellm, hosted_vllm": with_litellm("hosted_vllm"),
    "litellm, fireworks_ai": with_litellm("fireworks_ai", "/v1"),
    "litellm, huggingface": with_litellm("huggingface"),
    "litellm, infinity": with_litellm("infinity", return_documents=False),
    "langchain-cohere": with_langchain(langchain_cohere),
    "langchain-community, Jina": with_langchain(langchain_jina_rerank),
    "langchain-voyageai": with_langchain(langchain_voyage),
    "llama-index, Cohere": with_llama_index(
        lambda url, options: LlamaIndexCohere(api_key="key", base_url=url, **options)
    ),
    "llama-index, Jina": with_llama_index(
        lambda url, options: LlamaIndexJina(api_key="", base_url=f"{url}/v1", **options)
    ),
    "llama-index, SiliconFlow": with_llama_index(
        lambda url, options: SiliconFlowRerank(
            api_key="key", base_url=f"{url}/v1/rerank", **options
        )
    ),
    "llama-index, Xinference": with_llama_index(
        lambda url, options: XinferenceRerank(base_url=url, **options)
    ),
    "haystack, Cohere": with_haystack(haystack_cohere),
    "haystack, Jina": with_haystack(haystack_jina),
}
# What keeps the reason to itself, whatever the server says.
SILENT: dict[str, Call] = {
    "langchain-community, Infinity": with_langchain(langchain_infinity),
    "llama-index, TEI": with_llama_index(
        lambda url, options: TextEmbeddingInference(base_url=url, **options)
    ),
    "rerankers, cohere": with_rerankers("cohere", "/v1/rerank"),
    "rerankers, jina": with_rerankers("jina", "/v1/rerank"),
    "rerankers, voyage": with_rerankers("voyage", "/v1/rerank"),
    "rerankers, TEI": with_rerankers("text-embeddings-inference", "/rerank"),
}
EVERY = SAYING | SILENT


@pytest.fixture
def expected(url: str) -> Ranked:
    answer = httpx.post(f"{url}/v1/rerank", json={"query": "bread", "documents": DOCUMENTS})
    return by_index(answer.json()["results"])


@pytest.mark.parametrize("client", EVERY)
def test_default_call_ranks(client: str, url: str, expected: Ranked) -> None:
    assert EVERY[client](url, "bread", None) == expected


@pytest.mark.parametrize("client", EVERY)
def test_best_document_alone_is_given(client: str, url: str, expected: Ranked) -> None:
    assert EVERY[client](url, "bread", 1) == expected[:1]


@pytest.mark.parametrize("client", SAYING)
def test_reason_of_a_refusal_is_told(client: str, url: str) -> None:
    with pytest.raises(Exception, match=REASON):
        SAYING[client](url, " ", None)


@pytest.mark.parametrize("client", SILENT)
def test_refusal_is_an_error_all_the_same(client: str, url: str) -> None:
    with pytest.raises((AssertionError, KeyError, TypeError)) as failure:
        SILENT[client](url, " ", None)

    assert REASON not in str(failure.value)


@pytest.mark.parametrize("client", [cohere_v1, cohere_v2, xinference])
def test_key_may_be_empty(client: Any, url: str, expected: Ranked) -> None:
    assert client(url, "bread", None, key="") == expected


@pytest.mark.parametrize("provider", ["hosted_vllm", "huggingface"])
def test_key_may_be_missing(provider: str, url: str, expected: Ranked) -> None:
    assert with_litellm(provider, api_key=None)(url, "bread", None) == expected


@pytest.mark.parametrize("base", ["", "/v1/rerank", "/v2/rerank"])
def test_litellm_cohere_takes_any_base(base: str, url: str, expected: Ranked) -> None:
    assert with_litellm("cohere", base)(url, "bread", None) == expected


PROVIDERS = ["cohere", "jina_ai", "voyage", "together_ai", "hosted_vllm", "huggingface"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("asked", [True, False])
def test_litellm_gives_documents_when_asked(provider: str, asked: bool, url: str) -> None:
    answer = litellm.rerank(
        model=f"{provider}/m",
        query="bread",
        documents=DOCUMENTS,
        top_n=2,
        return_documents=asked,
        api_base=url,
        api_key="key",
    )

    for result in answer.results:
        assert result.get("document") == ({"text": DOCUMENTS[result["index"]]} if asked else None)


def test_litellm_infinity_cannot_read_documents(url: str) -> None:
    # It wants a text where all others want an object, and sends the same bytes as they do.
    with pytest.raises(litellm.APIConnectionError, match="should be a valid string"):
        with_litellm("infinity", return_documents=True)(url, "bread", None)


def test_cohere_v1_ranks_by_fields(url: str, expected: Ranked) -> None:
    answer = cohere.Client("key", base_url=url).rerank(
        model="m",
        query="bread",
        documents=[{"title": "ignored", "body": text} for text in DOCUMENTS],
        rank_fields=["body"],
        return_documents=True,
        max_chunks_per_doc=10,
    )

    assert by_index(answer.results) == expected
    assert [result.document.text for result in answer.results] == [text for text, _ in expected]


def test_cohere_v2_tells_what_was_billed(url: str) -> None:
    answer = cohere.ClientV2("key", base_url=url).rerank(
        model="m", query="bread", documents=DOCUMENTS, max_tokens_per_doc=4096
    )

    assert answer.id.startswith("rerank-")
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units.search_units == 1


def test_voyage_refuses_to_cut_when_told_so(url: str) -> None:
    client = voyageai.Client(api_key="key", base_url=f"{url}/v1")

    with pytest.raises(voyageai.error.InvalidRequestError, match=r"documents\[1\] is longer than"):
        client.rerank("bread", ["flour", "word " * 900], model="m", truncation=False)


def test_infinity_gives_documents(url: str) -> None:
    body = RerankInput(query="bread", documents=DOCUMENTS, return_documents=True)

    answer = infinity_rerank.sync(client=infinity_client.Client(base_url=url), body=body)

    for result in answer.results:
        assert result.document == {"text": DOCUMENTS[result.index]}


def test_langchain_cohere_ranks_objects(url: str) -> None:
    ranker = LangChainCohere(model="m", base_url=url, cohere_api_key="")

    # It sends them as YAML.
    found = ranker.rerank([{"body": text} for text in DOCUMENTS], "bread", top_n=None)

    assert {result["index"] for result in found} == {0, 1, 2}


@pytest.mark.parametrize("asked", [True, False])
def test_xinference_gives_documents_when_asked(asked: bool, url: str) -> None:
    model = RESTfulRerankModelHandle("m", url, {})

    answer = model.rerank(DOCUMENTS, "bread", return_documents=asked)

    assert all(("document" in result) is asked for result in answer["results"])


def test_openai_lists_the_model(url: str) -> None:
    client = openai.OpenAI(api_key="key", base_url=f"{url}/v1")

    assert [model.id for model in client.models.list()] == ["tiny-reranker"]


def test_xinference_lists_the_model(url: str) -> None:
    assert list(Client(url).list_models()) == ["tiny-reranker"]
