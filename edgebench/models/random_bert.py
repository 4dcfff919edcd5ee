"""A small text encoder of random weights, in the form of BERT: where a published one cannot be had, to see that all runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edgebench.errors import MissingExtra
from edgebench.models.hugging_face import library, quiet

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MOST_WORDS = 2000
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
TOKENS = 128
FILES = "config.json"


def write(folder: Path, texts: Iterable[str], seed: int = 0) -> Path:
    """Write one whose vocabulary is the words of some texts, as transformers saves it; what is there already stays."""
    if (folder / FILES).is_file():
        return folder
    try:
        transformers = library()
    except ModuleNotFoundError as error:
        raise MissingExtra("writing a text encoder", "text", "transformers") from error
    import torch

    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})[:MOST_WORDS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join((*SPECIAL, *words)) + "\n", encoding="utf-8")
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.BertTokenizerFast(vocab=str(folder / "words.txt"), do_lower_case=True).save_pretrained(folder)
        config = transformers.BertConfig(vocab_size=len(SPECIAL) + len(words), max_position_embeddings=TOKENS, **SIZE)
        network = transformers.BertModel(config)
        network.save_pretrained(folder / "part")
    for path in sorted((folder / "part").iterdir(), key=lambda each: each.name == FILES):  # what says that it is whole comes last
        path.replace(folder / path.name)
    (folder / "part").rmdir()
    return folder
