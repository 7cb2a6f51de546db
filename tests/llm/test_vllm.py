"""The vLLM engine with a stand-in for the library: the requests that it gets, and the answers."""

import io
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from curate.base.errors import RecipeError, RunError
from curate.llm.engine import Answer, Message, Request, Sampling
from curate.llm.vllm import Vllm, VllmEngine

UID = "0" * 32


@dataclass
class Llm:
    """Answers a prompt with itself, fails on "bad", and answers "hush" with a space."""

    arguments: dict[str, Any]
    calls: list[tuple[str, int]] = field(default_factory=list)
    sampled: list[dict[str, Any]] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)

    def generate(self, prompts, sampling, use_tqdm):
        self.images += [prompt["multi_modal_data"]["image"] for prompt in prompts if "multi_modal_data" in prompt]
        return self._write("generate", [prompt["prompt"] for prompt in prompts], sampling)

    def chat(self, talks, sampling, use_tqdm):
        last = [talk[-1]["content"] for talk in talks]
        self.images += [content[0]["image_pil"] for content in last if isinstance(content, list)]
        return self._write("chat", [c if isinstance(c, str) else c[1]["text"] for c in last], sampling)

    def _write(self, how, texts, sampling):
        self.calls.append((how, len(texts)))
        if "bad" in texts:
            raise ValueError("the prompt is longer than\nthe maximum model length")
        self.sampled += [vars(one) for one in sampling]
        return [
            SimpleNamespace(
                prompt_token_ids=[1] * len(text),
                outputs=[SimpleNamespace(text=" " if text == "hush" else text, token_ids=[1, 2], finish_reason="stop")],
            )
            for text in texts
        ]


@pytest.fixture
def made(monkeypatch):
    made = []
    library, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(device_type="cuda")  # type: ignore[attr-defined]
    library.LLM = lambda **arguments: made.append(Llm(arguments)) or made[-1]  # type: ignore[attr-defined]
    library.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", library)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "0")
    return made


def completion(text, **options):
    return Request(UID, "rewrite", "human", 0, prompt=text, **options)


def chat(text, **options):
    return Request(UID, "recaption", "short", 0, messages=(Message("system", "s"), Message("user", text)), **options)


def test_prompts_and_chats_are_answered_in_their_order(made):
    engine = VllmEngine(Vllm(model="org/tiny", options={"max_model_len": 64}))
    assert engine.model == "org/tiny max_model_len=64" and not made
    texts = ["one", "two", "three", "four", "hush"]
    answers = engine.ask([(chat if len(text) % 2 else completion)(text) for text in texts])
    assert answers[:4] == [Answer(text, None, len(text), 2, "stop") for text in texts[:4]]
    assert answers[4] == Answer(None, "empty: 2 tokens, but no text", 4, 2, "stop")
    assert made[0].calls == [("generate", 2), ("chat", 3)] and engine.ask([]) == []
    engine.check()
    assert len(made) == 1 and made[0].arguments["model"] == "org/tiny" and made[0].arguments["max_model_len"] == 64


def test_the_sampling_of_each_request_is_handed_on(made):
    hot = Sampling(0.9, 0.95, 7, ("\n",), 5)
    VllmEngine(Vllm(model="tiny")).ask([completion("a", sampling=hot), completion("b", sampling=Sampling(seed=3))])
    assert made[0].sampled == [
        {"temperature": 0.9, "top_p": 0.95, "max_tokens": 7, "stop": ["\n"], "seed": 5},
        {"temperature": 0.0, "top_p": 1.0, "max_tokens": 77, "stop": None, "seed": None},
    ]


def test_an_image_goes_with_its_request(made):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    engine = VllmEngine(Vllm(model="tiny"))
    answers = engine.ask([chat("what is it?", image=file.getvalue()), completion("it is", image=file.getvalue())])
    assert [answer.text for answer in answers] == ["what is it?", "it is"]
    assert [image.size for image in made[0].images] == [(8, 6)] * 2


def test_a_request_that_fails_costs_no_other(made):
    answers = VllmEngine(Vllm(model="tiny")).ask([completion(text) for text in ("a", "b", "bad", "c")])
    assert [answer.text for answer in answers] == ["a", "b", None, "c"]
    assert answers[2].error == "too_long: the prompt is longer than the maximum model length"


def test_what_cannot_be_loaded_is_said(made, monkeypatch):
    def fail(**arguments):
        raise OSError("no such\nmodel")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", fail)
    with pytest.raises(RunError, match="vllm tiny: cannot be loaded: no such model"):
        VllmEngine(Vllm(model="tiny")).check()
    monkeypatch.setattr(sys.modules["vllm.platforms"], "current_platform", SimpleNamespace(device_type=""))
    with pytest.raises(RecipeError, match="vllm tiny: vLLM finds no device on this machine"):
        VllmEngine(Vllm(model="tiny")).check()
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(RecipeError, match=r"vllm tiny: vLLM cannot be imported .*pip install '\.\[vllm\]'"):
        VllmEngine(Vllm(model="tiny")).check()
