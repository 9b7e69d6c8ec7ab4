"""The engine that samples completions while GRPO trains: what must stand before it starts, and vLLM's own server."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ecg_grpo.errors import InputError
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.vllm_on_cpu import import_vllm, keep_weights_loadable


def prepare_rollouts(settings: GRPOSettings) -> None:
    """Sets up what vLLM needs before it is imported.

    Raises:
        InputError: vLLM is asked for and not installed, or its server without a GPU.
    """
    if not settings.uses_vllm:
        return
    if settings.rollout == "vllm-server" and not torch.cuda.is_available():
        raise InputError(
            "grpo.rollout",
            "vllm-server needs CUDA GPUs: the weights go to the server over NCCL",
            "Set it to vllm-colocate or transformers on this machine.",
        )
    import_vllm()
    keep_weights_loadable()


@contextmanager
def vllm_server(model: Path, settings: GRPOSettings, max_model_length: int) -> Iterator[str]:
    """A vLLM server on 127.0.0.1 with the GPUs after the training's; it ends with the block, or with this process.

    Args:
        model: the model that it begins with; the trainer sends it newer weights.
        settings: section `grpo`.
        max_model_length: longest prompt and completion together, in tokens.

    Yields:
        Its address.
    """
    from trl.scripts.vllm_serve import ScriptArguments, build_command

    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    own = settings.launch.processes // settings.launch.machines
    devices = visible.split(",")[own : own + settings.vllm_tensor_parallel_size]
    if len(devices) < settings.vllm_tensor_parallel_size:
        raise InputError(
            "grpo.rollout",
            f"vllm-server needs {settings.gpus} GPUs here, {own} for training and the rest for the server; this machine "
            f"shows {len(visible.split(','))}",
            "Lower launch.processes or vllm_tensor_parallel_size, or use vllm-colocate.",
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = build_command(
        ScriptArguments(
            model=str(model),
            host="127.0.0.1",
            port=port,
            tensor_parallel_size=settings.vllm_tensor_parallel_size,
            gpu_memory_utilization=settings.vllm_gpu_memory_utilization,
            max_model_len=max_model_length,
            log_level="warning",
        )
    )
    of_the_trainer = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in of_the_trainer}
    environment |= {"CUDA_VISIBLE_DEVICES": ",".join(devices), "VLLM_SERVER_DEV_MODE": "1"}
    server = subprocess.Popen(command, env=environment, preexec_fn=_end_with_the_parent)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


def _end_with_the_parent() -> None:
    pr_set_pdeathsig = 1  # <sys/prctl.h>: otherwise a killed trainer would leave a server that holds its GPUs
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
