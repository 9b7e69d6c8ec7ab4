"""Attempts after the first ask for more, and never for more than a partition gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Project
from hypothesis import given
from hypothesis import strategies as st
from snakemake_executor_plugin_slurm.partitions import PartitionLimits, read_partition_file

from ecg_grpo.attempts import at_attempt

SHIPPED = [partition.limits for partition in read_partition_file(ROOT / "profiles/slurm/partitions.yaml")]
amounts = st.integers(1, 10_000)
limits = st.builds(
    PartitionLimits,
    max_mem_mb=amounts | st.just(float("inf")),
    max_runtime=amounts | st.just(float("inf")),
    max_gpu=st.integers(0, 8),
)


def fits(asked: dict[str, int], gpu: int, partition: PartitionLimits) -> bool:
    within = asked["mem_mb"] <= partition.max_mem_mb and asked["runtime"] <= partition.max_runtime
    return within and gpu <= partition.max_gpu


def test_without_a_cluster_it_grows_with_the_number() -> None:
    assert at_attempt(3, {"mem_mb": 8000, "runtime": 60}) == {"mem_mb": 24000, "runtime": 180}


def test_it_grows_as_far_as_the_best_partition_goes() -> None:
    small, large = PartitionLimits(max_mem_mb=9000, max_runtime=100), PartitionLimits(max_mem_mb=20000, max_runtime=90)
    first = {"mem_mb": 8000, "runtime": 60}
    assert at_attempt(3, first, [small, large]) == {"mem_mb": 20000, "runtime": 90}
    assert at_attempt(3, first | {"gpu": 1}, [small, large]) == {"mem_mb": 24000, "runtime": 180}, "none has a GPU"
    with_gpu = PartitionLimits(max_mem_mb=8000, max_runtime="2h", max_gpu=1)
    assert at_attempt(3, first | {"gpu": 1}, [small, large, with_gpu]) == {"mem_mb": 8000, "runtime": 120}


@given(st.integers(1, 4), amounts, amounts, st.integers(0, 4), st.lists(limits, max_size=4))
def test_what_fits_at_first_fits_at_every_attempt(
    attempt: int, mem_mb: int, runtime: int, gpu: int, partitions: list[PartitionLimits]
) -> None:
    first = {"mem_mb": mem_mb, "runtime": runtime, "gpu": gpu}
    asked = at_attempt(attempt, first, partitions)
    assert mem_mb <= asked["mem_mb"] <= mem_mb * attempt
    assert runtime <= asked["runtime"] <= runtime * attempt
    if any(fits(first, gpu, one) for one in partitions):
        assert any(fits(asked, gpu, one) for one in partitions)


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("llama*.yaml")), ids=lambda file: file.stem)
def test_every_attempt_of_a_production_run_fits_a_partition_of_the_profile(file: Path) -> None:
    needs = yaml.safe_load(file.read_text())["resources"]
    assert needs
    for rule, asked in needs.items():
        first = {"mem_mb": 8000, "runtime": 1440, "gpu": 0} | asked  # no rule asks for more by itself
        for attempt in (1, 2, 3):
            later = at_attempt(attempt, first, SHIPPED)
            assert any(fits(later, first["gpu"], one) for one in SHIPPED), f"{rule}, attempt {attempt}: {later}"


def test_more_gpus_than_all_jobs_together_may_have_is_refused(project: Project) -> None:
    project.configure(resources={"generate_answers": {"gpu": 2}})
    run = project.snakemake("--dry-run", "--resources", "gpu=1", check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(
        "configuration error: resources.generate_answers.gpu: 2 GPUs, and --resources gpu=1"
    )
    for enough in (["--resources", "gpu=2"], ["--resources", "mem_mb=9000"], []):
        project.snakemake("--dry-run", *enough)
