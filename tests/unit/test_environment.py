from pathlib import Path

import pytest

from rerank_server.engines.environment import usable_cores


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_limit_of_the_pod_bounds_the_cores(
    files: dict[str, str], most: int | None, tmp_path: Path
) -> None:
    without_limit = usable_cores(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    cores = usable_cores(tmp_path)

    assert cores == (without_limit if most is None else most)
