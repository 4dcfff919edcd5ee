"""What a language model is asked, and what its answers took."""

from __future__ import annotations

from pydantic import Field

from edgebench.schema.base import Frozen, Interval


class Prompts(Frozen):
    """What a bundle's language model is asked, and how long it answers at most; decoding is greedy."""

    file: str | None = Field(None, description="a JSON object a line: `prompt`, and `reference` where there is one; null: random")
    sha256: str | None = Field(None, description="of what is asked, in order; null: random tokens")
    count: int = Field(ge=1, description="prompts in one sweep")
    prompt_tokens: int | None = Field(None, ge=1, description="random tokens in a prompt; null: as the tokenizer makes of text")
    max_new_tokens: int = Field(ge=2, le=4096)


class Spread(Frozen):
    """What values within trials come to: medians over trials of each trial's quantiles; blank ones had too few values."""

    median: Interval
    p90: float | None = None
    p99: float | None = None
    count: int = Field(description="values in all trials")


class Generation(Frozen):
    """A language model's answers. Rates have quantiles from the slow end: `p99` is what 99 % of the values reach at least."""

    prompts: int
    prompts_sha256: str | None = Field(None, description="null: random tokens")
    max_new_tokens: int
    sweeps: int = Field(description="over all prompts, in all trials")
    prompt_tokens: int = Field(description="of one sweep")
    new_tokens: int = Field(description="of one sweep")
    first_token_ns: Spread | None = Field(None, description="from a prompt's text to its first new token; null: see `unknown`")
    prefill_per_second: Spread = Field(description="prompt tokens over the time to the first token, or over the prefill's alone")
    token_ns: Spread = Field(description="from one new token to the next")
    decode_per_second: Spread = Field(description="new tokens after the first, over their time")
    token_joules: Interval | None = Field(None, description="gross energy of one new token, its part of the prefill's included")
    exact_match: float | None = Field(None, description="share of the references that answers equal, spaces at the ends aside")
    references: int = Field(0, description="prompts that have a reference")
    same_answers: bool | None = Field(None, description="whether every sweep gave the same tokens; null: see `unknown`")
    unknown: dict[str, str] = Field({}, description="why something of the above is null")
