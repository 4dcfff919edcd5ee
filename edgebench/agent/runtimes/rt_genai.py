"""Language models on ONNX Runtime GenAI's CPU provider: greedy, one prompt at a time."""

import json
import os
from typing import Any, Dict, List, Sequence

from ..clock import now_ns

PACKAGE = "onnxruntime-genai"
MODULES = ("onnxruntime_genai",)
DISTRIBUTIONS = ("onnxruntime-genai",)
OPTIONAL = True
SEARCH = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}
"""Over the folder's own: the likeliest token, always."""


class Runtime(object):
    """One model and its tokenizer; an answer is a generator of its own."""

    OFFERS = ("generate",)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy
        import onnxruntime_genai

        self._np = numpy
        self._genai = onnxruntime_genai
        self._most = job["prompts"]["max_new_tokens"]

    def load(self, path: str, threads: int) -> None:
        """Open the folder that the configuration lies in, on the processor alone."""
        folder = os.path.dirname(os.path.abspath(path))
        with open(path, encoding="utf-8") as stream:
            model = json.load(stream)["model"]
        options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1, "log_severity_level": 3}
        config = self._genai.Config(folder)
        config.clear_providers()
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._context = int(model.get("context_length") or 0)
        self._model = self._genai.Model(config)
        self._tokenizer = self._genai.Tokenizer(self._model)

    def prepare(self, raws: Sequence[bytes], count: int) -> str:
        """Read a prompt: UTF-8 with zeros after it."""
        return raws[0].rstrip(b"\0").decode("utf-8")

    def infer(self, feed: str) -> List[Any]:
        """Answer a prompt; the new tokens [1, n], zeros after them."""
        tokens = self.generate(feed)["tokens"]
        padded = self._np.zeros((1, self._most), self._np.int32)
        padded[0, : len(tokens)] = tokens
        return [padded]

    def generate(self, feed: str) -> Dict[str, Any]:
        """Answer a prompt, and say when each token was there: `prompt_tokens`, `first_ns`, `token_ns`, `tokens`."""
        genai, ends = self._genai, []  # type: Any, List[int]
        begin = now_ns()
        asked = self._tokenizer.encode(feed)
        length = len(asked) + self._most
        if self._context and length > self._context:
            given = (len(asked), self._most, self._context)
            raise ValueError("a prompt of %d tokens and an answer of %d are more than the model's %d" % given)
        parameters = genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=length, **SEARCH)
        generator = genai.Generator(self._model, parameters)
        generator.append_tokens(asked)
        tokens = []
        while not generator.is_done():
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            ends.append(now_ns())
        if not tokens:
            raise ValueError("the model answers with nothing; look at its folder's end-of-text tokens")
        return {
            "prompt_tokens": len(asked),
            "first_ns": ends[0] - begin,
            "token_ns": [ends[index] - ends[index - 1] for index in range(1, len(ends))],
            "tokens": tokens,
        }

    def fitted(self, feed: str) -> str:
        """Leave out the end of a prompt's middle, line by line, until it fits beside an answer."""
        lines = feed.splitlines()
        while self._context and len(lines) > 3 and len(self._tokenizer.encode("\n".join(lines))) + self._most > self._context:
            del lines[-4]
        return "\n".join(lines)

    def text(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text."""
        return str(self._tokenizer.decode(self._np.array(tokens, self._np.int32)))

    def scores(self, outputs: Any) -> bytes:
        """Return nothing: no tokens are scores."""
        return b""

    def tensors(self, outputs: Any) -> List[Any]:
        """Return the tokens."""
        return list(outputs)
