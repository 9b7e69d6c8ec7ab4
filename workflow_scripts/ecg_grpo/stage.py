"""What every program of the workflow does the same way: arguments, threads, log, errors, provenance.

A program is a parser and a function:

    parser = StageParser("train_sft", __doc__)
    parser.add_input("--train", help="training split (parquet)")
    parser.add_output("--adapter", help="the adapter")
    if __name__ == "__main__":
        parser.run(train_sft)

`run` sends everything that libraries print to the log file, keeps the terminal for the progress display, turns an
`InputError` into one line and exit status 1, and writes a provenance file: what went in, what came out, with which
settings, code and versions, and how long it took.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from ecg_grpo.errors import InputError, want_of_room
from ecg_grpo.files import sha256_of, write_json
from ecg_grpo.fingerprint import code_files, code_fingerprint, git_commit
from ecg_grpo.result_store import ResultStore, result_key

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
_REPORTED_PACKAGES = (
    *("accelerate", "bert-score", "datasets", "deepspeed", "gguf", "httpx", "huggingface-hub", "jinja2", "nltk", "numpy"),
    *("pandas", "peft", "plotly", "pyarrow", "pydantic", "rouge-score", "sacrebleu", "safetensors", "scikit-learn"),
    *("sentence-transformers", "tokenizers", "torch", "transformers", "trl", "vllm"),
)

_MAKE_ROOM = "Make room and run snakemake again."
_SECONDS_TO_END = 5
"""For the processes of an earlier attempt that was just ended."""


class StageParser(argparse.ArgumentParser):
    """An argument parser that knows which arguments are files that the stage reads and which it writes."""

    def __init__(self, stage: str, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.stage = stage
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads to use")
        self.add_argument("--log", type=Path, help="file for everything that is printed (default: the terminal)")
        self.add_argument("--provenance", type=Path, help="file for what went in, what came out and with which code")

    def add_input(self, flag: str, **options: object) -> None:
        """A file, or with `nargs` several, that the stage reads; it must be given unless `default` is."""
        self._inputs.append(self.add_argument(flag, type=Path, required="default" not in options, **options).dest)

    def add_output(self, flag: str, **options: object) -> None:
        """A file that the stage writes."""
        self._outputs.append(self.add_argument(flag, type=Path, required=True, **options).dest)

    def add_page(self, name: str) -> None:
        """A page that the stage writes, and what it is made from (`ecg_grpo.pages`)."""
        self.add_input("--template", help="the page's Jinja template")
        self.add_input("--style", help="the page's style sheet")
        self.add_input("--scripts", nargs="*", metavar="JS", help="the page's scripts")
        self.add_output("--page", help=f"{name} to write")

    def add_settings(self, section: str) -> None:
        """The stage's section of the configuration."""
        self.add_argument("--settings", default="{}", metavar="JSON", help=f"section `{section}` of the configuration, as JSON")

    def add_store(self) -> None:
        """Lets runs that would compute the same have it from each other; every input must be an argument."""
        self.add_argument("--store", type=Path, metavar="FOLDER", help="results that runs have in common (default: none)")

    def run(self, function: Callable[[argparse.Namespace, Stage], None]) -> None:
        """Parses the command line and runs the stage; ends the process with status 1 if it fails."""
        arguments = self.parse_args()
        # The rule's threads are for all processes that accelerate started on this machine.
        arguments.threads = max(1, arguments.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(arguments.threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["TQDM_DISABLE"] = "1"  # libraries' bars fill a log with control characters
        stage = Stage(self.stage, arguments.threads)
        started = time.monotonic()
        try:
            if arguments.log is not None:
                stage.write_to(arguments.log)
            is_traced = arguments.provenance and stage.is_first_process
            origin = self._origin(arguments) if is_traced else {}
            self._compute_or_fetch(function, arguments, stage)
            if is_traced:
                self._write_provenance(arguments, stage, origin, time.monotonic() - started)
            sys.stdout.flush()  # a log without room for the rest is not noticed any later
        except InputError as error:
            stage.fail(str(error))
        except OSError as error:
            stage.say_traceback()
            where = f"{error.filename or 'file system'}: " if error.errno else ""  # without a number it is a library's own
            what_to_do = f" {_MAKE_ROOM}" if want_of_room(error) else ""
            stage.fail(f"{where}{str(error.strerror or error).rstrip('.')}.{what_to_do}")
        except Exception as error:  # the one place that turns a defect into a line; the log has the traceback
            if arguments.log is None:
                raise
            stage.say_traceback()
            if reason := want_of_room(error):
                stage.fail(f"file system: {reason}. {_MAKE_ROOM}")
            if _is_anothers_end(error):
                stage.end_with_the_others(f"another process of this stage ended; its log is beside {arguments.log}")
            stage.fail(f"{type(error).__name__}: {error}. This is not your input's fault; details: {arguments.log}")

    def _compute_or_fetch(
        self, function: Callable[[argparse.Namespace, Stage], None], arguments: argparse.Namespace, stage: Stage
    ) -> None:
        if getattr(arguments, "store", None) is None:
            function(arguments, stage)
            return
        inputs = [file for name in self._inputs for file in _files(getattr(arguments, name))]

        def key_now() -> str:
            return result_key(code_fingerprint(sys.argv[0]), arguments.settings, self._parameters(arguments), inputs)

        key = key_now()
        store = ResultStore(arguments.store, key)
        outputs = {name: getattr(arguments, name) for name in self._outputs}
        facts = store.fetch(outputs)
        if facts is None:
            function(arguments, stage)
            if key_now() == key:  # or an input changed while this stage ran, and nobody knows of what its result was made
                store.keep(outputs, stage.facts)
        else:
            stage.say(f"the same was computed before: {arguments.store / key[:32]}")
            stage.facts |= facts | {"computed_before": key[:32]}

    def _parameters(self, arguments: argparse.Namespace) -> dict[str, object]:
        """What was given besides files, folders, settings and threads."""
        shown_elsewhere = {*self._inputs, *self._outputs, "settings", "threads"}
        given = {name: value for name, value in vars(arguments).items() if name not in shown_elsewhere}
        return {name: value for name, value in given.items() if value is not None and not isinstance(value, Path)}

    def _origin(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Code and inputs as they are when the stage begins: an edit while it runs does not change what made its result."""
        program = Path(sys.argv[0])
        return {
            "program": str(program),
            "code": code_fingerprint(program),
            "commit": git_commit(program.resolve().parent),
            "code_files": code_files(program),
            "inputs": _hashes(arguments, self._inputs),
        }

    def _write_provenance(self, arguments: argparse.Namespace, stage: Stage, origin: dict[str, Any], seconds: float) -> None:
        now = _hashes(arguments, self._inputs)
        if changed := [file for file, digest in origin["inputs"].items() if now.get(file) != digest]:
            raise InputError(", ".join(changed), "changed while this stage ran", "Run snakemake again.")
        write_json(
            arguments.provenance,
            {
                "stage": self.stage,
                **origin,
                "settings": getattr(arguments, "settings", "{}"),
                "parameters": self._parameters(arguments),
                "outputs": _hashes(arguments, self._outputs),
                "packages": {name: version for name in _REPORTED_PACKAGES if (version := _version_in_use(name))},
                "python": platform.python_version(),
                "machine": platform.platform(),
                "threads": arguments.threads,
                "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "slurm_job": os.environ.get("SLURM_JOB_ID"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(seconds, 1),
                "facts": stage.facts,
            },
        )


class Stage:
    """A running stage.

    Attributes:
        name: the program's name.
        threads: processor threads to use.
        terminal: where the progress display goes; library output never does.
        is_first_process: of several processes of one stage, the one that writes results.
        facts: whatever the stage found out that belongs into its provenance (e.g. the number format it chose).
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.facts: dict[str, object] = {}
        self.terminal: TextIO = sys.stderr
        self._has_log = False
        self._rank = os.environ.get("RANK", "0")  # set by accelerate and torchrun
        self.is_first_process = self._rank == "0"

    def write_to(self, log: Path) -> None:
        """Sends everything that is printed from now on to a log file, of which every process has its own."""
        if not self.is_first_process:
            log = log.with_suffix(f".rank{self._rank}{log.suffix}")
        self.terminal = _open_terminal()
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = self._open_alone(log)
        self._has_log = True
        for standard in (sys.stdout, sys.stderr):
            standard.flush()
            # The descriptors, not the Python objects: native libraries and child processes print too.
            os.dup2(stream.fileno(), standard.fileno())

    def _open_alone(self, log: Path) -> TextIO:
        """The log, emptied, locked for as long as this process or one that it started lives.

        A Snakemake that was killed with SIGKILL leaves its jobs running. The next one would start the same job beside them, in
        the same scratch directory. It deletes the job's log first, so the file that is locked has a second, hidden name.
        """
        hidden = log.with_name(f".{log.name}.lock")
        stream = hidden.open("a", encoding="utf-8")
        _name_too(hidden, log)
        deadline = time.monotonic() + _SECONDS_TO_END
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = hidden.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
                    self.fail(
                        f"{log}: an earlier process of this stage still runs and writes to it ({holder}). "
                        "Wait until it ends, or end it with kill"
                    )
                time.sleep(0.1)
                continue
            except OSError:  # a file system without locks
                pass
            stream.truncate(0)
            print(f"process {os.getpid()} on {platform.node()}", file=stream, flush=True)
            return stream

    def say(self, line: str) -> None:
        """One line for the log."""
        print(line, file=sys.stderr, flush=True)

    def say_traceback(self) -> None:
        """The current error's traceback for the log, if there is one with room."""
        if self._has_log:
            with suppress(OSError):
                traceback.print_exc()

    def end_with_the_others(self, message: str) -> None:
        """The end of a process whose fellow ended, with status 1; the terminal has that one's line already."""
        with suppress(OSError):
            self.say(f"{self.name}: {message}")
        raise SystemExit(1)

    def fail(self, message: str) -> None:
        """One line for the terminal and, if there is room, for the log, then the end of the process with status 1."""
        line = f"{self.name}: error: {message}"
        with suppress(OSError):
            print(line, file=self.terminal, flush=True)
        if self._has_log:
            with suppress(OSError):
                self.say(line)
        raise SystemExit(1)


def _name_too(file: Path, name: Path) -> None:
    """Makes `name` a second name of a file that is written to."""
    if name.is_file():
        name.unlink()
    with suppress(FileExistsError):  # another process of this stage did the same meanwhile
        try:
            name.hardlink_to(file)
        except OSError:  # a file system without hard links
            name.symlink_to(file.name)


def _is_anothers_end(error: BaseException) -> bool:
    """Whether an error only says that another process of the stage is gone, which has said why itself."""
    return "WORLD_SIZE" in os.environ and any(
        sign in str(error) for sign in ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    )


def _open_terminal() -> TextIO:
    """Where the user sees: standard error, or past a launcher that keeps it for itself, what ECG_GRPO_TERMINAL names."""
    options = {"encoding": "utf-8", "errors": "backslashreplace"}
    with suppress(OSError, KeyError):  # on another machine there is no such file
        return Path(os.environ["ECG_GRPO_TERMINAL"]).open("a", **options)
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", **options)


def _files(value: Path | list[Path]) -> list[Path]:
    return value if isinstance(value, list) else [value]


def _hashes(arguments: argparse.Namespace, names: list[str]) -> dict[str, str]:
    files = [file for name in names for file in _files(getattr(arguments, name))]
    return {str(file): sha256_of(file) for file in files if file.is_file()}  # of one that is missing the program speaks


def _version_in_use(package: str) -> str | None:
    module = {"scikit-learn": "sklearn"}.get(package, package.replace("-", "_"))
    if module not in sys.modules:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
