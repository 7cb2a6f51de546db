"""The section `captions.engines` of a recipe: what writes texts, and what it costs. See `curate.recipe.captions`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curate.recipe.section import ModelPath, Section, UserPath

EngineName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]


class Price(Section):
    """What an engine costs, in any currency: per million tokens, or per hour that it works."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    hour: float = Field(0.0, ge=0)


class OpenAI(Section):
    """An endpoint that speaks OpenAI's protocol, such as `vllm serve` or a hosted one.

    `key` is the name of an environment variable; `extra` is added to each request's body.
    """

    base_url: str = Field(pattern=r"^https?://")
    model: str = Field(min_length=1)
    key: str | None = None
    concurrency: int = Field(16, ge=1, le=4096, strict=True)
    timeout: float = Field(60.0, gt=0)
    attempts: int = Field(6, ge=1, le=100, strict=True)
    extra: dict[str, Any] = Field({})


class Vllm(Section):
    """A model in this process, by vLLM. `options` are further arguments of `vllm.LLM`."""

    model: ModelPath
    options: dict[str, Any] = Field({})


class Guided(Section):
    """A captioner of Hugging Face's transformers in this process, steered by classifier-free guidance of scale `gamma`.

    It is given an image and no words: for `recaption` of style plain. `gamma` 1 is plain greedy decoding.
    """

    model: ModelPath
    gamma: float = Field(2.0, ge=0, le=10)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    batch: int = Field(16, ge=1, le=4096, strict=True)


class Recorded(Section):
    """Answers of an earlier run, or any Parquet files of table `answers`; what they do not hold is an error."""

    path: UserPath = Field(min_length=1)
    model: str = Field(min_length=1)


class EngineSpec(Section):
    """One engine: one of the four."""

    openai: OpenAI | None = None
    vllm: Vllm | None = None
    guided: Guided | None = None
    recorded: Recorded | None = None
    price: Price = Price()

    @property
    def batch(self) -> int:
        """Requests at a time, where a kind does not say."""
        return 4096 if self.vllm else 256

    @model_validator(mode="after")
    def _one_of_four(self) -> "EngineSpec":
        if sum(spec is not None for spec in (self.openai, self.vllm, self.guided, self.recorded)) != 1:
            raise ValueError("give one of openai, vllm, guided and recorded")
        return self
