"""A RAG service gets its documents in order, over the Service's DNS name."""

import json
import math

import pytest

from lab.demo import REQUEST, ask
from lab.errors import LabError
from lab.target import Target


def test_answers_another_pod_in_jina_form(kube: Target, namespace: str, served: str) -> None:
    url = f"http://{served}.{namespace}.svc/v1/rerank"
    documents = ["Grüße aus Köln", "東京は日本の首都です。", {"text": "plain"}]

    answer = ask(kube, url, {"query": "capital", "documents": documents, "top_n": 2})

    results = answer["results"]
    assert answer["object"] == "rerank"
    assert answer["model"] == "tiny-reranker"
    assert answer["usage"]["total_tokens"] > 0
    assert len(results) == 2
    assert results == sorted(results, key=lambda result: -result["relevance_score"])
    assert all(math.isfinite(result["relevance_score"]) for result in results)
    texts = ["Grüße aus Köln", "東京は日本の首都です。", "plain"]
    assert all(result["document"]["text"] == texts[result["index"]] for result in results)


def test_demo_puts_the_document_that_helps_first(kube: Target, namespace: str, served: str) -> None:
    answer = ask(kube, f"http://{served}.{namespace}.svc/v1/rerank", REQUEST)

    first, second = answer["results"][:2]
    assert "captures screenshots" in first["document"]["text"]
    assert first["relevance_score"] > 0.5 > second["relevance_score"]


def test_tells_another_pod_what_was_wrong(kube: Target, namespace: str, served: str) -> None:
    url = f"http://{served}.{namespace}.svc/v1/rerank"

    with pytest.raises(LabError, match=r"answered 400 .*documents is an empty list: give"):
        ask(kube, url, {"query": "capital", "documents": []})


def test_url_in_status_and_kubectl_wait_are_what_users_script_with(
    kube: Target, namespace: str, served: str
) -> None:
    where = [f"rerankerservice/{served}", f"--namespace={namespace}"]

    kube.kubectl("wait", *where, "--for=condition=Ready", "--timeout=5s")
    status = kube.get(*where)["status"]

    assert status["url"] == f"http://{served}.{namespace}.svc"
    assert status["replicas"] == status["readyReplicas"] == 1


def test_server_pod_runs_as_nobody_special(kube: Target, namespace: str, served: str) -> None:
    where = [f"deployment/{served}", f"--namespace={namespace}", "--"]

    uid = kube.kubectl("exec", *where, "id", "-u").strip()
    mounts = kube.kubectl("exec", *where, "cat", "/proc/mounts")

    assert uid == "2000"
    assert "serviceaccount" not in mounts


def test_scale_subresource_counts_pods(kube: Target, namespace: str, served: str) -> None:
    path = f"/apis/rerank.dev/v1alpha1/namespaces/{namespace}/rerankerservices/{served}/scale"

    scale = json.loads(kube.kubectl("get", "--raw", path))

    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 1
    selected = kube.get("pods", f"--namespace={namespace}", "-l", scale["status"]["selector"])
    assert len(selected["items"]) == 1
