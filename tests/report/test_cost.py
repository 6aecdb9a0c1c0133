"""What a run took, from made-up benchmark files."""

from pathlib import Path

import pytest

from didgen.report.cost import commit, cost_table, energy_kwh, gpus, jobs, machine
from didgen.report.reading import BrokenResult

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(run_dir: Path, name: str, seconds: object, memory: object, cpu: object) -> None:
    path = run_dir / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:01:00\t{memory}\t0\t0\t0\t0\t0\t0\t{cpu}\n")


def test_jobs_of_one_stage_are_added_and_the_dearest_comes_first(tmp_path: Path) -> None:
    benchmark(tmp_path, "finetune", 3600, 2048, 7200)
    benchmark(tmp_path, "pairs/1-of-2", 1800, 1024, 1800)
    benchmark(tmp_path, "pairs/2-of-2", 5400, 3072, 5400)
    table = cost_table(jobs(tmp_path), gpu_watts=0)
    rows = {row.heading: [cell.value for cell in row.cells] for row in table.rows}
    assert list(rows) == ["pairs", "finetune", "all"]
    assert rows["pairs"] == [2, 2.0, 90.0, 3.0, 0.02]
    assert rows["all"] == [3, 3.0, 90.0, 3.0, 0.04]
    assert "A GPU's energy is not counted" in table.note
    assert "Of a resumed job only the last attempt counts." in table.note


@pytest.mark.parametrize("stage", ["finetune", "fidelity", "label_judges", "label_fidelity"])
def test_a_gpu_counts_in_the_stages_that_hold_one(tmp_path: Path, stage: str) -> None:
    benchmark(tmp_path, stage, 3600, 2048, 0)
    benchmark(tmp_path, "data", 3600, 2048, 0)
    table = cost_table(jobs(tmp_path), gpu_watts=700)
    energy = {row.heading: row.cells[-1].value for row in table.rows}
    assert energy == {stage: 0.7, "data": 0.0, "all": 0.7}
    assert "700 W" in table.note and "not counted" not in table.note
    assert energy_kwh(3600, 0, 0) == pytest.approx(0.01)


def test_a_method_without_a_network_holds_no_gpu(tmp_path: Path) -> None:
    for name in ("pairs/1-of-1", "methods/warp/pairs/1-of-1", "methods/warp/train"):
        benchmark(tmp_path, name, 3600, 2048, 0)
    table = cost_table(jobs(tmp_path), gpu_watts=700)
    energy = {row.heading: row.cells[-1].value for row in table.rows}
    assert energy == {"pairs": 0.7, "pairs, warp": 0.0, "train, warp": 0.0, "all": 0.7}


def test_jobs_of_further_generators_count_with_those_of_the_first(tmp_path: Path) -> None:
    for name in ("finetune", "generator1/finetune", "generator12/methods/warp/pairs/1-of-1"):
        benchmark(tmp_path, name, 10, 100, 5)
    found = {job.stage: job.gpu for job in jobs(tmp_path)}
    assert found == {"finetune": True, "pairs, warp": False}
    assert len(jobs(tmp_path)) == 3


@pytest.mark.parametrize("unknown", ["-", "NA", ""])
def test_a_job_too_short_to_be_measured_is_counted_and_said(tmp_path: Path, unknown: str) -> None:
    benchmark(tmp_path, "report", 0.2, unknown, unknown)
    table = cost_table(jobs(tmp_path))
    assert [row.heading for row in table.rows] == ["report"]
    assert table.rows[0].cells[3].value is None and "Too short to be measured: 1 job." in table.note


def test_a_run_without_benchmarks_has_no_table(tmp_path: Path) -> None:
    assert cost_table(jobs(tmp_path)) is None


def test_a_damaged_benchmark_is_named(tmp_path: Path) -> None:
    benchmark(tmp_path, "report", "soon", 1, 1)
    with pytest.raises(BrokenResult, match="report.tsv"):
        jobs(tmp_path)
    (tmp_path / "benchmarks" / "report.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(BrokenResult, match="max_rss"):
        jobs(tmp_path)


def test_cards_as_the_driver_lists_them() -> None:
    listed = "NVIDIA A100-SXM4-40GB, 40960, 400.00\nNVIDIA T4, 15360, [N/A]\n"
    assert gpus(listed) == (["NVIDIA A100-SXM4-40GB (40 GiB)", "NVIDIA T4 (15 GiB)"], 400.0)
    assert gpus("") == ([], 0.0)


def test_the_machine_is_told() -> None:
    facts, watts = machine()
    assert {"Processor", "Cores", "Memory", "GPUs"} <= {name for name, _ in facts} and watts >= 0
    named = commit()
    assert named is None or len(named.split(",")[0]) == 40
