"""`bench.gpu` at a tiny shape, with no package that a bare GPU machine lacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABSENT = (
    *("duckdb", "streamlit", "vllm", "pandas", "pyarrow", "scipy", "sklearn", "altair", "tyro", "rich"),
    *("platformdirs", "tenacity", "gguf", "py3langid", "threadpoolctl", "requests", "sentencepiece"),
)
LIMITED = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # to import one of them fails, as where it is not installed
sys.argv = ["bench.gpu", *sys.argv[1:]]
runpy.run_module("bench.gpu", run_name="__main__")
"""


@pytest.mark.full
def test_every_step_runs_and_is_right_without_our_other_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, "--shape", "tiny", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    records = {r["step"]: r for r in map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())}
    assert ran.returncode == 0, [record.get("traceback") for record in records.values()]
    assert [record["state"] for record in records.values()] == ["done"] * 11
    assert records["float32: equal to PEFT"]["greedy_equal"] == records["float32: equal to PEFT"]["greedy_of"] == 9
    for name, count in (("training, 13 adapters", "operators_per_step"), ("generation", "operators_per_token")):
        assert records[name][count] > 100
    assert records["training, 13 adapters"]["profile"][0]["device_ms"] > 0
    assert records["determinism"]["equal_weights"] == 1


@pytest.mark.full
def test_what_the_deadline_leaves_no_time_for_is_a_record_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--shape", "tiny", "--out", str(tmp_path), "--deadline", "-1"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 1
    records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert len(records) == 11 and all(record["state"].startswith("skipped") for record in records)
