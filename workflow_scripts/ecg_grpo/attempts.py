"""What a job asks a cluster for when it is tried again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol


class Limits(Protocol):
    """The most that a partition gives one job; infinite where it has no limit."""

    max_mem_mb: float
    max_runtime: float
    max_gpu: int


def at_attempt(attempt: int, first: Mapping[str, int], partitions: Iterable[Limits] = ()) -> dict[str, int]:
    """Memory and time of an attempt: those of the first one times its number, as far as a partition goes.

    Slurm's plugin sends a job that fits no partition to the cluster's default one, whatever that has. So of the partitions that
    have room for the first attempt the one counts that offers most of what is wanted. Where none has, nothing is held back.

    Args:
        attempt: 1 or more.
        first: what the first attempt asks for: `mem_mb` (MB), `runtime` (minutes), and `gpu` if it can use some.
        partitions: of the cluster; none where there is no cluster.

    Returns:
        `mem_mb` and `runtime`, each at least that of the first attempt.
    """
    wanted = {name: first[name] * attempt for name in ("mem_mb", "runtime")}
    offers = [
        {"mem_mb": int(min(wanted["mem_mb"], one.max_mem_mb)), "runtime": int(min(wanted["runtime"], one.max_runtime))}
        for one in partitions
        if first["mem_mb"] <= one.max_mem_mb and first["runtime"] <= one.max_runtime and first.get("gpu", 0) <= one.max_gpu
    ]
    return max(offers, key=lambda offer: sum(offer[name] / first[name] for name in offer), default=wanted)
