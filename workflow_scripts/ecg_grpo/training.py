"""What the trainings have in common: device and processes, weights, trainer arguments, resuming, delivering."""

from __future__ import annotations

import json
import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ecg_grpo.checkpoints import last_checkpoint, mark_complete, remove_checkpoints_after
from ecg_grpo.errors import InputError, want_of_room
from ecg_grpo.files import new_file, new_model_directory, write_json
from ecg_grpo.settings.training import LoraSettings, TrainingSettings
from ecg_grpo.stage import Stage


def project_only_scored_tokens() -> None:
    """Lets TRL compute logits on a processor, as it does on a GPU, only where the loss needs them.

    TRL 1.16 projects every position, prompts and padding too, wherever Triton does not run, because changing shapes make
    some accelerators compile anew. A processor has nothing to compile; the values are the same, a step takes a quarter less.
    """
    if not torch.cuda.is_available():
        # The one use of this name in that module is the choice between all positions and the scored ones.
        assert hasattr(trl.trainer.utils, "_use_triton"), "TRL has changed: see whether this is still needed"
        trl.trainer.utils._use_triton = lambda _device: True


def refuse_missing_packages(settings: TrainingSettings) -> None:
    """Says at once which package of another environment the settings need, before minutes are spent.

    Raises:
        InputError: DeepSpeed, bitsandbytes or a tracker is asked for and not installed, or 4 bits without a GPU.
    """
    if settings.launch.deepspeed is not None and find_spec("deepspeed") is None:
        raise InputError("launch.deepspeed", "DeepSpeed is not installed", "Install envs/train_vllm.yaml or use --sdm conda.")
    if settings.lora is not None and settings.lora.load_in_4bit:
        if not torch.cuda.is_available():
            raise InputError("lora.load_in_4bit", "4-bit weights need a CUDA GPU", "Set it to false here.")
        if find_spec("bitsandbytes") is None:
            raise InputError(
                "lora.load_in_4bit", "bitsandbytes is not installed", "Install envs/train_vllm.yaml or use --sdm conda."
            )
    for tracker in settings.report_to:
        if find_spec(tracker) is None:
            raise InputError("report_to", f"{tracker} is not installed", f"Run: pip install {tracker}")


def join_processes(settings: TrainingSettings) -> None:
    """Lets DeepSpeed find the other processes, or itself alone.

    Call it before the trainer's arguments are made and a model is loaded: ZeRO-3 shards while loading.
    """
    if settings.launch.deepspeed is None:
        return
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    if "RANK" not in os.environ:  # one process, started without a launcher
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import deepspeed

    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")


def leave_processes() -> None:
    """Ends the communication between processes; not for a process in which vLLM ran, which does so itself."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def trainer_arguments(settings: TrainingSettings, scratch: Path, dtype: torch.dtype, scores: bool = False) -> dict[str, Any]:
    """The trainer's arguments, as far as SFT and GRPO share them.

    Args:
        settings: the stage's section.
        scratch: folder for checkpoints.
        dtype: what `device.choose_dtype` said.
        scores: for a model that gives one number for a text; its head is trained whole, in float32, upon frozen weights.
    """
    on_gpu = torch.cuda.is_available()
    frozen_in_dtype = settings.lora is not None and settings.launch.deepspeed is None
    return {
        **settings.trainer_arguments(),
        "output_dir": str(scratch),
        "use_cpu": not on_gpu,
        # Frozen weights are held in the number format itself; weights that are trained are computed with in it.
        "bf16": dtype == torch.bfloat16 and (not frozen_in_dtype or holds_base_in_float32(settings) or scores),
        "deepspeed": settings.launch.deepspeed,
        "optim": "adamw_torch_fused" if on_gpu and settings.launch.deepspeed is None else "adamw_torch",
        "disable_tqdm": True,
        "report_to": list(settings.report_to) or "none",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the guards are to see what it would hide
        "save_total_limit": 2,
        "dataloader_pin_memory": on_gpu,
    }


def holds_base_in_float32(settings: TrainingSettings) -> bool:
    """Whether frozen weights stay in float32: vLLM gets them merged with the adapter again and again, which bfloat16 wears."""
    return settings.lora is not None and bool(getattr(settings, "uses_vllm", False))


def load_for_training(
    model: Path, dtype: torch.dtype, settings: TrainingSettings, scores: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer.

    Frozen weights (LoRA) are held in `dtype`, or in 4 bits; the adapter itself is in float32. Weights that are trained
    themselves are held in float32, since updates would be lost in bfloat16's eight bits; DeepSpeed keeps such a copy itself.

    Args:
        model: model directory.
        dtype: what `device.choose_dtype` said.
        settings: the stage's section.
        scores: with a head that gives one number for a text, drawn anew from the seed, in place of the one over the vocabulary.
    """
    project_only_scored_tokens()
    trained_in_float32 = settings.lora is None and settings.launch.deepspeed is None
    held = torch.float32 if trained_in_float32 or holds_base_in_float32(settings) else dtype
    options: dict[str, Any] = {"dtype": held}
    if settings.lora is not None and settings.lora.load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    tokenizer = AutoTokenizer.from_pretrained(model)
    if scores:
        set_seed(settings.seed)
        options |= {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
        return AutoModelForSequenceClassification.from_pretrained(model, **options), tokenizer
    return AutoModelForCausalLM.from_pretrained(model, **options), tokenizer


def lora_config(settings: LoraSettings | None, scores: bool = False) -> LoraConfig | None:
    """PEFT's configuration of the adapter; None trains every parameter.

    Args:
        settings: the adapter's.
        scores: for a model that gives one number for a text; the head is trained whole.
    """
    if settings is None:
        return None
    head = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]} if scores else {"task_type": "CAUSAL_LM"}
    return LoraConfig(bias="none", **head, **settings.model_dump(exclude={"load_in_4bit"}))


class MarkCheckpoints(TrainerCallback):
    """Marks every checkpoint that all processes have finished."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def run_trainer(trainer: Trainer, scratch: Path, steps: int, stage: Stage) -> Path:
    """Trains from the last whole checkpoint to the end and saves what came out, in every process.

    Args:
        trainer: of SFT, GRPO or the reward model.
        scratch: directory with the checkpoints.
        steps: the training's optimizer steps.
        stage: the running stage.

    Returns:
        The folder with the final adapter or model.

    Raises:
        InputError: there is no room for a checkpoint.
    """
    if trainer.args.deepspeed is None:  # which keeps a copy in float32 itself
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # TRL casts the adapter of a 4-bit model to bfloat16, which rounds small steps away
                parameter.data = parameter.data.float()
    everyone = trainer.accelerator.wait_for_everyone
    checkpoint = last_checkpoint(scratch, steps)
    everyone()  # all have looked before one tidies up
    if trainer.is_world_process_zero():
        remove_checkpoints_after(scratch, checkpoint)
    everyone()
    if checkpoint is not None:
        stage.say(f"resuming from {checkpoint}")
        stage.facts["resumed_from_step"] = int(checkpoint.name.rsplit("-", 1)[1])
    trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
    trainer.add_callback(MarkCheckpoints())
    final = scratch / "final"
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.save_model(str(final))
    except Exception as error:
        if want_of_room(error) or _torch_had_no_room(error, scratch):
            raise InputError(
                scratch,
                f"no room for a checkpoint ({shutil.disk_usage(scratch).free // 2**20} MiB left)",
                "Make room and run snakemake again; it goes on from the checkpoint before.",
            ) from error
        raise
    everyone()
    return final


def _torch_had_no_room(error: BaseException | None, folder: Path) -> bool:
    """Whether torch's writer failed, which does not say why, on a disk that is full."""
    while error is not None:
        text = str(error)
        if ("PytorchStreamWriter" in text or "inline_container" in text) and shutil.disk_usage(folder).free < 2**24:
            return True
        error = error.__cause__ or error.__context__
    return False


def deliver(source: Path, target: Path) -> None:
    """Copies a finished file out of the scratch folder; it appears whole or not at all."""
    with new_file(target) as partial:
        shutil.copyfile(source, partial)


def deliver_checkpoint(final: Path, manifest: Path) -> None:
    """Copies an adapter, or a whole model, out of the scratch folder into the directory of a manifest."""
    with new_model_directory(manifest.parent) as directory:
        for file in final.iterdir():
            if file.name == "adapter_config.json":
                _write_adapter_config(file, directory / file.name)
            elif file.suffix in (".json", ".safetensors"):
                shutil.copyfile(file, directory / file.name)


def _write_adapter_config(source: Path, target: Path) -> None:
    """PEFT writes the adapter's modules as a set, in another order every time; here they are in order."""
    configuration = json.loads(source.read_text())
    if isinstance(configuration["target_modules"], list):
        configuration["target_modules"].sort()
    write_json(target, configuration)
