"""A tiny language model with random weights and its tokenizer, made in seconds: nothing is fetched."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebench.data._torchvision import load_torchvision

TEXT = (
    "The heart beats. The lung breathes. A fracture of the wrist heals in six weeks.",
    "Which drug lowers the blood pressure? The dose is given twice a day.",
    "Pneumonia is seen on the left; the right lung is clear. No effusion.",
    "An ulcer, a cyst and a benign mass were found in the stomach, the liver and the kidney.",
)
PROMPTS = ("The heart", "Which drug lowers", "The left lung is clear and", "A fracture")
SPECIAL = ("<pad>", "<s>", "</s>")
NEW_TOKENS = 12


def transformers() -> Any:
    """Import it after torchvision: the other way round the two wheels do not fit."""
    load_torchvision()
    import transformers

    return transformers


def make_network(folder: Path, seed: int = 0) -> Path:
    """Write a Llama of two layers and a BPE tokenizer of 315 tokens as transformers keeps them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=315, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    library = transformers()
    named = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    config = library.LlamaConfig(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        initializer_range=0.2,  # else all next tokens are nearly as likely
    )
    torch.manual_seed(seed)
    model = library.LlamaForCausalLM(config).eval()
    readable = set(string.ascii_letters + string.digits + ".,;?Ġ")
    with torch.no_grad():
        for token, number in tokenizer.get_vocab().items():
            if token != SPECIAL[2] and not set(token) <= readable:
                model.lm_head.weight[number] = 0  # never the likeliest: answers are text, not torn bytes
    model.save_pretrained(folder)
    return folder


START = """
import runpy, sys
from edgebench.data._torchvision import load_torchvision
load_torchvision()
root, network = sys.argv[1:3]
for precision in sys.argv[3:]:
    words = ["-i", network, "-o", f"{root}/{precision}", "-p", precision, "-e", "cpu", "-c", f"{root}/cache"]
    sys.argv = ["builder", *words]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
"""


def build(network: Path, root: Path, *precisions: str) -> Path:
    """Let ONNX Runtime GenAI's builder write folders by its command line, one for each precision, below `root`."""
    words = [sys.executable, "-W", "ignore", "-c", START, str(root), str(network), *precisions]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def greedy(network: Path, prompts: Sequence[str], count: int = NEW_TOKENS) -> dict[str, list[int]]:
    """Return the tokens that transformers generates, its own way."""
    import torch

    library = transformers()
    tokenizer = library.AutoTokenizer.from_pretrained(network)
    model = library.AutoModelForCausalLM.from_pretrained(network).eval()
    answers = {}
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
        answers[prompt] = [int(each) for each in found[0, ids.shape[1] :]]
    return answers


def text(network: Path, tokens: Sequence[int]) -> str:
    """Write tokens as text, by transformers' tokenizer."""
    return str(transformers().AutoTokenizer.from_pretrained(network).decode(tokens, skip_special_tokens=True))


def write_prompts(path: Path, references: Mapping[str, str] | None = None) -> Path:
    """Write a file of prompts, a JSON object a line."""
    known = references or {}
    lines = [{"prompt": each, **({"reference": known[each]} if each in known else {})} for each in PROMPTS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_gguf(path: Path, kind: str = "Q8_0", **more: Any) -> Path:
    """Write a Llama of one layer with random weights and a tokenizer of bytes, as llama.cpp's own package does."""
    import gguf
    import numpy as np

    writer, width, inner, heads, kv_heads, words = gguf.GGUFWriter(path, "llama"), 64, 128, 4, 2, 320
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(words)
    writer.add_file_type({"Q8_0": 7, "Q4_0": 2, "F16": 1}[kind])
    writer.add_tokenizer_model("llama")
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    writer.add_token_list(["<unk>", "<s>", "</s>", *octets, *(f"w{n}" for n in range(words - 259))])
    writer.add_token_scores([0.0] * words)
    known = gguf.TokenType
    writer.add_token_types([known.UNKNOWN, *[known.CONTROL] * 2, *[known.BYTE] * 256, *[known.NORMAL] * (words - 259)])
    for name, value in more.items():
        writer.add_uint32(name.replace("__", "."), value)
    random, quantized = np.random.default_rng(0), gguf.GGMLQuantizationType[kind]
    matrices = {
        "token_embd": (words, width),
        "output": (words, width),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width * kv_heads // heads, width),
        "blk.0.attn_v": (width * kv_heads // heads, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
    }
    for name, shape in matrices.items():
        weights = random.standard_normal(shape).astype(np.float32) * 0.05
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, quantized), raw_dtype=quantized)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PARAMETERS = 2 * 320 * 64 + 64 * (64 + 32 + 32 + 64) + 3 * 128 * 64 + 3 * 64
"""Of the file above: two of words, four of attention, three of the layer, three norms."""
