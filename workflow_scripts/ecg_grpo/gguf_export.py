"""A Llama model directory as one GGUF file, for llama.cpp and what is built on it.

The format is that of the GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), written by the package
`gguf`; what stands in it follows llama.cpp's conventions for the architecture `llama`. What such a file cannot say exactly is
refused: llama.cpp would load it all the same, and answer otherwise than the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

NUMBER_FORMATS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
"""What matrices are stored in, by the name that users know; vectors are float32 in all of them, as llama.cpp computes."""

DESCRIPTION = "Research software, not a medical device. Its answers must not be used for diagnosis or treatment."

_LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The regular expression that Llama 3's tokenizer.json has; compared, never run."""

_PRE_TOKENIZERS = {
    (("bytes of words",), False): "gpt-2",
    (("digits", "bytes of words"), False): "smollm",
    (("Llama 3 split", "bytes"), True): "llama-bpe",
}
"""llama.cpp's name for how a tokenizer cuts a text, by its steps and whether whole words of the vocabulary skip merges."""

_OTHER_MODEL = "Only Llama models with a byte-level BPE can be exported; serve this one as docs/serve.md says."


def write_gguf(directory: Path, target: Path, number_format: str, name: str) -> dict[str, object]:
    """Writes a model, its tokenizer and its chat template, one weight at a time in memory.

    Args:
        directory: a Hugging Face model directory.
        target: the GGUF file.
        number_format: a key of NUMBER_FORMATS.
        name: what the model is called.

    Returns:
        Facts for the provenance: number of tensors, llama.cpp's name for the pre-tokenizer.

    Raises:
        InputError: it is no Llama model with a byte-level BPE, or has something that the file could not say.
    """
    config = _read_config(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    kind, file_type = NUMBER_FORMATS[number_format]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_type("model")
    writer.add_name(name)
    writer.add_description(DESCRIPTION)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_hyperparameters(writer, config)
    pre_tokenizer = _add_tokenizer(writer, tokenizer, config, directory)
    try:
        tensors = _write_tensors(writer, directory, config, kind)
    finally:
        writer.close()
    return {"tensors": tensors, "pre_tokenizer": pre_tokenizer}


def start_token_of(tokenizer: PreTrainedTokenizerBase, directory: Path) -> str:
    """The token that the tokenizer puts before every text, or nothing.

    llama.cpp puts it before a rendered chat too, in which the training had what the chat template writes and nothing else.

    Raises:
        InputError: it adds something else, or the chat template does not begin with that token.
    """
    with_added, alone = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    if with_added == alone:
        return ""
    if with_added != [tokenizer.bos_token_id, *alone]:
        raise InputError(directory, f"the tokenizer adds more than a start token: {with_added} for {alone}", _OTHER_MODEL)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    if not rendered.startswith(tokenizer.bos_token):
        what = f"the tokenizer puts {tokenizer.bos_token!r} before every text, and the chat template does not begin with it"
        raise InputError(directory, what, "llama.cpp would ask otherwise than the training did; mend one of the two.")
    return tokenizer.bos_token


def _read_config(directory: Path) -> PretrainedConfig:
    written = read_json(directory / "config.json")
    if written.get("architectures") != ["LlamaForCausalLM"]:
        raise InputError(directory, f"the architecture is {written.get('architectures')}, not LlamaForCausalLM", _OTHER_MODEL)
    if written.get("quantization_config"):
        raise InputError(directory, "the weights are quantized", "Export the model that it was quantized from.")
    config = AutoConfig.from_pretrained(directory)
    for key, expected in {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}.items():
        if getattr(config, key) != expected:
            raise InputError(directory, f"{key} is {getattr(config, key)!r}, not {expected!r} as in every Llama", _OTHER_MODEL)
    rope = config.rope_parameters
    if rope["rope_type"] not in ("default", "linear", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(directory, f"no rope scaling is known like {rope}", "Known are: none, linear, llama3.")
    return config


def _add_hyperparameters(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _rope_factors(config: PretrainedConfig) -> dict[str, np.ndarray]:
    """Llama 3's scaling, which llama.cpp reads as one divisor for each frequency."""
    if config.rope_parameters["rope_type"] != "llama3":
        return {}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    return {"rope_freqs.weight": (config.rope_parameters["rope_theta"] ** -powers / scaled).numpy()}


def _add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, directory: Path
) -> str:
    written = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {"type": "slow"}}
    pre_tokenizer = _pre_tokenizer_of(written, directory)
    # Embeddings may have more rows than the tokenizer has tokens.
    tokens = [f"[PAD{i}]" for i in range(config.vocab_size)]
    types = [TokenType.UNUSED] * config.vocab_size
    ordinary = ((i, text, TokenType.NORMAL) for text, i in written["model"]["vocab"].items())
    added = (
        (token["id"], token["content"], TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
        for token in written["added_tokens"]
    )
    for i, text, kind in (*ordinary, *added):
        if i >= config.vocab_size:
            raise InputError(directory, f"token {text!r} has no row in the embeddings", "The model cannot read it; mend it.")
        tokens[i], types[i] = text, kind
    if len(set(tokens)) < len(tokens):
        raise InputError(directory, "two tokens have the same text", _OTHER_MODEL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in written["model"]["merges"]])

    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        what = f"the tokenizer ends answers with {tokenizer.eos_token_id}, the model with {config.eos_token_id}"
        raise InputError(directory, what, "Make them the same.")
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for add, i in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if i is not None:
            add(i)
    if not isinstance(tokenizer.chat_template, str):
        raise InputError(directory, "the tokenizer has no chat template, or several", "Give it the one of the training.")
    # Where a file does not say, llama.cpp goes by the pre-tokenizer's name.
    writer.add_add_bos_token(bool(start_token_of(tokenizer, directory)))
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokenizer.chat_template)
    return pre_tokenizer


def _pre_tokenizer_of(written: dict[str, Any], directory: Path) -> str:
    """llama.cpp's name for how the tokenizer cuts a text.

    Args:
        written: the content of tokenizer.json.
    """
    model = written["model"]
    steps = written.get("pre_tokenizer") or {}
    names = tuple(_step(step) for step in steps.get("pretokenizers", [steps]))
    if model["type"] != "BPE" or not names[-1].startswith("bytes"):
        raise InputError(directory, f"the tokenizer is {model['type']} on {names[-1]}, not a byte-level BPE", _OTHER_MODEL)
    changes = (written.get("normalizer") or {}).get("type")
    if changes and written["normalizer"] != {"type": "Sequence", "normalizers": []}:
        raise InputError(directory, f"the tokenizer changes texts ({changes}), as llama.cpp does not", _OTHER_MODEL)
    if found := [key for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout") if model.get(key)]:
        raise InputError(directory, f"the tokenizer's BPE has {found[0]}, llama.cpp's does not", _OTHER_MODEL)
    if found := [
        token["content"] for token in written["added_tokens"] if token["lstrip"] or token["rstrip"] or token["single_word"]
    ]:
        raise InputError(directory, f"the token {found[0]!r} looks at what stands beside it", _OTHER_MODEL)
    key = names, bool(model.get("ignore_merges"))
    if key not in _PRE_TOKENIZERS:
        what = f"llama.cpp has no known name for a pre-tokenizer like {', '.join(names)}, ignore_merges: {key[1]}"
        raise InputError(directory, what, _OTHER_MODEL)
    return _PRE_TOKENIZERS[key]


def _step(step: dict[str, Any]) -> str:
    """A step of a pre-tokenizer in words; equal words, equal effect."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}:
            return "bytes"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "bytes of words"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} if (
            pattern == _LLAMA_3_SPLIT
        ):
            return "Llama 3 split"
    return json.dumps(step)


def _write_tensors(writer: gguf.GGUFWriter, directory: Path, config: PretrainedConfig, kind: GGMLQuantizationType) -> int:
    """Writes the head of the file and then the weights; returns how many."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    factors = _rope_factors(config)
    shapes = {name: list(factor.shape) for name, factor in factors.items()}
    for source, file in _weights(directory, config):
        name = names.get_name(source, try_suffixes=(".weight",))
        part = file.get_slice(source)
        if name is None or part.get_dtype() not in ("F32", "F16", "BF16"):
            raise InputError(directory, f"no Llama has a weight {source} of type {part.get_dtype()}", _OTHER_MODEL)
        shapes[name] = part.get_shape()
    if not config.tie_word_embeddings and "output.weight" not in shapes:
        raise InputError(directory, "the weights lack lm_head.weight", "llama.cpp would take the embeddings; mend the model.")
    for name, shape in shapes.items():
        stored = _stored_as(kind, shape)
        size = quant_shape_to_byte_shape(shape, stored)
        writer.add_tensor_info(name, size, np.dtype(np.uint8), int(np.prod(size)), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for factor in factors.values():
        writer.write_tensor_data(factor)
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for source, file in _weights(directory, config):
        weight = file.get_tensor(source).to(torch.float32).numpy()
        projection = ".".join(source.split(".")[-2:])
        if projection in heads:
            weight = _interleave(weight, heads[projection])
        weight = quantize(np.ascontiguousarray(weight), _stored_as(kind, weight.shape))
        if weight.dtype == np.float16 and not np.isfinite(weight).all():
            raise InputError(directory, f"{source} has a number beyond float16's", "Export with --type bf16.")
        writer.write_tensor_data(weight)
    return len(shapes)


def _weights(directory: Path, config: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    """Names of the weights that a GGUF file has, each with the open file that holds it."""
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in sorted(file.keys()):
                # Where the output is the embeddings, llama.cpp takes these; old checkpoints hold frequencies too.
                if not (config.tie_word_embeddings and name == "lm_head.weight") and not name.endswith("inv_freq"):
                    yield name, file


def _stored_as(kind: GGMLQuantizationType, shape: tuple[int, ...] | list[int]) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    return kind if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """A query or key projection whose rotated pairs are neighbours: llama.cpp turns row 2i of a head with row 2i + 1,
    transformers row i with the one half a head further.

    Args:
        weight: (heads * head size, hidden size).
    """
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
