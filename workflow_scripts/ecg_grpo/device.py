"""The device that computes: its threads, its number format, its memory."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress

import torch
from transformers.integrations import sdpa_attention

from ecg_grpo.settings.section import Precision
from ecg_grpo.stage import Stage


def prepare_device(precision: Precision, stage: Stage) -> torch.dtype:
    """Sets threads and memory up, chooses the number format, and notes all of it in the stage's facts.

    Returns:
        The number format of weights while computing.
    """
    set_up_processor(stage.threads)
    dtype = choose_dtype(precision)
    stage.facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    stage.facts["dtype"] = str(dtype).removeprefix("torch.")
    return dtype


def set_up_processor(threads: int) -> None:
    """Sets how many threads compute, and where there is no GPU what saves a processor work."""
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        _keep_freed_memory()
        _share_keys_among_heads()


def choose_dtype(precision: Precision) -> torch.dtype:
    """The number format that a precision stands for on this device.

    `auto` takes bfloat16 on a GPU that has it. On a processor it takes bfloat16 if a timed matrix product is at least
    1.5 times as fast as in float32: what the processor says of itself is no guide, since some that list bfloat16
    instructions run them at half the speed of float32 and others at four times. Several processes on a processor take
    float32: each would time the others' noise, and they must agree.
    """
    if precision == "auto":
        if torch.cuda.is_available():
            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
            precision = "float32"
        else:
            precision = "bfloat16" if _bfloat16_speedup() >= 1.5 else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _bfloat16_speedup() -> float:
    """How many times as fast as in float32 a product as large as a small model's feed-forward layer is in bfloat16.

    The formats take turns and the best of many timings counts for each, so that a busy neighbour hits both or neither.
    """
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    for _ in range(12):
        for dtype in best:
            left, right = torch.ones(512, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
            started = time.perf_counter()
            left @ right
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.float32] / best[torch.bfloat16]


def _keep_freed_memory() -> None:
    """Lets glibc reuse large freed blocks instead of giving them back and faulting every page in again.

    A training step allocates and frees the same few hundred megabytes; on two cores this saves a fifth of its time.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # names and values of <malloc.h>
    with suppress(OSError, AttributeError):  # another C library: nothing to tune
        c_library = ctypes.CDLL("libc.so.6")
        c_library.mallopt(m_mmap_max, 0)
        c_library.mallopt(m_trim_threshold, 2**31 - 1)
        c_library.mallopt(m_top_pad, 64 * 2**20)


def _share_keys_among_heads() -> None:
    """Lets attention read the keys that several heads share where they lie, instead of copying them for every head.

    transformers asks PyTorch for it only where there is no mask, since CUDA's kernels cannot do both. A processor's kernel can,
    with equal results; the copies took a fifth of a sampling step.
    """
    sdpa_attention.use_gqa_in_sdpa = lambda *_: True
