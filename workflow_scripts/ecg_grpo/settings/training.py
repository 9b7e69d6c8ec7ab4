"""What the two training sections, `sft` and `grpo`, have in common."""

from __future__ import annotations

import shlex

from pydantic import Field

from ecg_grpo.settings.section import Section


class LoraSettings(Section):
    """A low-rank adapter (Hu et al. 2021, arXiv 2106.09685); field names are PEFT's."""

    r: int = Field(16, ge=1, description="Rank of the update.")
    lora_alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: str = Field(
        "all-linear", description="Modules that get an adapter: `all-linear` or a regular expression over names."
    )


class LaunchSettings(Section):
    """How a training program is started."""

    processes: int = Field(1, ge=1, description="Number of training processes; one for each GPU.")
    accelerate_config: str | None = Field(
        None, description="Accelerate configuration file (e.g. DeepSpeed ZeRO); null starts plain Python."
    )

    def command(self) -> str:
        """What stands in front of the program's name in a shell command."""
        if self.accelerate_config is None and self.processes == 1:
            return "python"
        words = ["accelerate", "launch", "--num_processes", str(self.processes)]
        if self.accelerate_config is not None:
            words += ["--config_file", self.accelerate_config]
        return shlex.join(words)

    def files(self) -> list[str]:
        """The files that the command reads: an edit of one is a change of the training."""
        return [] if self.accelerate_config is None else [self.accelerate_config]
