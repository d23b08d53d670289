"""Print docs/server.md with the tables that follow from the code: settings and metrics."""

import sys
from collections.abc import Iterator
from pathlib import Path

from rerank_server.engines.vllm_metrics import METRICS
from rerank_server.metrics import Metrics
from rerank_server.settings import SECTIONS, Settings, default, variable


def settings_table() -> Iterator[str]:
    """Yield one table for each section of `rerank-server --help`."""
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            yield ""
            yield f"| {SECTIONS[name]} | default | |"
            yield "|---|---|---|"
        value = "required" if field.is_required() else default(name)
        text = (field.description or "").replace("|", "\\|")
        yield f"| `{variable(name)}` | {value and f'`{value}`'} | {text} |".replace(
            "`required`", "required"
        )
    yield ""


def metrics_table() -> Iterator[str]:
    """Yield a row for each metric, as Prometheus names it."""
    yield ""
    yield "| metric | type | |"
    yield "|---|---|---|"
    of_vllm = [family for metric in METRICS for family in metric.collect()]
    families = [*Metrics().registry.collect(), *of_vllm]
    for family in sorted(families, key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"| `{name}` | {family.type} | {family.documentation} |"
    yield ""


TABLES = {"settings": settings_table, "metrics": metrics_table}


def main(path: str) -> None:
    """Print the file at `path`, with what stands between a table's two marks written anew."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    inside = False
    for line in lines:
        mark = line.removeprefix("<!-- ").removesuffix(" -->")
        if mark.startswith("end of "):
            inside = False
        if not inside:
            print(line)
        if line.startswith("<!-- generated: "):
            inside = True
            print(*TABLES[mark.removeprefix("generated: ")](), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
