"""A tiny random Llama with a tokenizer that has Llama 3's numbers: 128,000 tokens and 256 special ones."""

from __future__ import annotations

from pathlib import Path

TURNS = 128_000
"""Number of the first special token."""

FIRST_SPECIAL = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
]
SPECIAL = FIRST_SPECIAL + [f"<|reserved_special_token_{number}|>" for number in range(3, 3 + 256 - len(FIRST_SPECIAL))]

DATED_TEMPLATE = """{{- bos_token }}
{%- if date_string is not defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}
{%- for message in messages %}
{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' }}
{%- if message.role == 'system' %}{{- 'Today Date: ' ~ date_string ~ '\n\n' }}{%- endif %}
{{- message.content | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""
"""Puts a date before the system prompt, as the template of Llama 3.2 does."""


def save_tiny_llama_3(folder: Path) -> None:
    """Weights, tokenizer and a chat template that writes a date."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=DATED_TEMPLATE,
        model_max_length=2048,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[128_001, 128_008, 128_009],  # as Llama 3.2's
        )
    )
    # As Llama 3.2's: whoever says nothing samples.
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def byte_level_tokenizer():
    """Bytes, what `assistant` and an empty line are merged from, names for all other numbers, special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    known: dict[str, int] = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    known |= {"ĊĊ": 271, "assistant": 78_191}
    pieces = ["assistant"[:end] for end in range(2, len("assistant"))]
    known |= {piece: 300 + number for number, piece in enumerate(pieces)}
    taken = set(known.values())
    known |= {f"⟨{number}⟩": number for number in range(TURNS) if number not in taken}
    merges = [("Ċ", "Ċ"), *(("assistant"[:end], "assistant"[end]) for end in range(1, len("assistant")))]
    tokenizer = Tokenizer(models.BPE(vocab=known, merges=merges))
    splitter = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}|[\r\n]+|[^\r\n\p{L}\p{N}]+"), "isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", TURNS)])
    return tokenizer
