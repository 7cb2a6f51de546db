"""Caption images with a vision-to-text model from Hugging Face transformers and classifier-free guidance.

At each step the decoder runs twice, with and without the image, and takes the likeliest token of

    logits = u + γ (c − u)

where c are the logits with the image and u those with the image masked. γ = 1 equals greedy decoding. Larger values
make captions more specific and, from about 3 on, ungrammatical. Masking replaces the image's embeddings by zeros. By
family, these embeddings are:

    vision-encoder-decoder  the decoder's cross-attention input: the encoder's last hidden states after any projection
    blip                    the decoder's cross-attention input: the vision model's last hidden states
    git                     the decoder's prefix: the visual embeddings after their projection and its layer norm

The paper fine-tunes its captioner on both conditions. Both streams run as one batch of twice the size. Only
`max_tokens` of a request's sampling is used. Constraints in the model's own generation settings (minimum length,
repeated n-grams, suppressed tokens) still apply. Rounding in matrix products depends on the batch size, so nearly tied
tokens may change places.

Source: Kornblith et al., Guiding Image Captioning Models Toward More Specific Captions, ICCV 2023.
"""

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from curate.base.errors import RecipeError
from curate.base.process import ModelPool
from curate.base.wording import one_line
from curate.llm.engine import Answer, Engine, EngineOptions, Request
from curate.models import hugging_face as hf
from curate.models.hugging_face import Device, Precision
from curate.recipe.section import ModelPath


class Guided(EngineOptions):
    """An image captioner from transformers that runs in curate's own process, with classifier-free guidance.

    Needs `pip install '.[guided]'`. Such a model reads only the image, so use it for `recaption` with `styles:
    [plain]`. curate supports the model families vision-encoder-decoder, blip, and git.
    """

    example: ClassVar[Any] = {"model": "microsoft/git-base", "gamma": 2.0}

    takes_words: ClassVar[bool] = False
    is_local: ClassVar[bool] = True

    model: ModelPath = Field(examples=["microsoft/git-base"])
    """Name of the model on the Hugging Face Hub, or a local folder."""
    gamma: float = Field(2.0, examples=[1.5], ge=0, le=10)
    """Guidance scale γ. 1 means greedy decoding. The paper uses 1.5 to 2."""
    device: Device = Field("auto", examples=["cuda"])
    """Where the model runs. `auto`: on all GPUs, or on the CPU if there is no GPU."""
    precision: Precision = Field("fp32", examples=["fp16"])
    """Precision of the model. curate always combines its logits in float32."""
    batch: int = Field(16, examples=[64], ge=1, le=4096, strict=True)
    """Images per batch. If memory runs out, curate uses smaller batches."""

    def open(self) -> "GuidedEngine":
        return GuidedEngine(self)


class GuidedEngine(Engine):
    """`Engine` with guided decoding. Loads the model on first use."""

    def __init__(self, options: Guided) -> None:
        self._options = options
        where = f"guided {options.model}"
        self._loaded = ModelPool(partial(_load, options, where), partial(hf.find_devices, where, options.device))
        self._batch = options.batch  # halved permanently when memory runs out

    @cached_property
    def model(self) -> str:
        """The model's name (with a digest if it is a folder), γ and precision."""
        options = self._options
        return f"{hf.model_name(options.model)} guided gamma={options.gamma} {options.precision}"

    def check(self) -> None:
        """Load the model. Raises RecipeError if torch, the device, or the model is missing or not supported."""
        with self._loaded.use():
            pass

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Engine`. A request gets an error if it has no image, is a chat, or has a prompt that is too long."""
        with self._loaded.use() as loaded:
            batches: dict[tuple[int, int], list[_Prepared]] = defaultdict(list)
            for index, request in enumerate(requests):
                prepared = _prepare(loaded, index, request)
                if isinstance(prepared, Answer):
                    yield index, prepared
                else:  # equal prompt lengths need no padding
                    batches[len(prepared.start), prepared.max_tokens].append(prepared)
            for waiting in map(deque, batches.values()):
                while waiting:
                    batch = [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]
                    for prepared, answer in zip(batch, hf.in_halves(batch, partial(self._answer, loaded)), strict=True):
                        yield prepared.index, answer if isinstance(answer, Answer) else Answer.of_failure(answer)

    def _answer(self, loaded: "_Loaded", prepared: Sequence["_Prepared"]) -> list[Answer]:
        try:
            return _answer(loaded, prepared, self._options.gamma)
        except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError
            if hf.is_memory(error):
                self._batch = max(1, len(prepared) // 2)
            raise


def guide(gamma: float, input_ids: Any, scores: Any) -> Any:
    """Return guided logits, equal for both streams; `scores` has the rows of c, then the rows of u.

    Both are float32 (2 · batch, vocabulary). A forbidden token is −∞ in both and remains so. With `gamma` bound, this
    is a logits processor that transformers calls at each step.
    """
    c, u = scores.chunk(2)
    return (u + gamma * (c - u)).where(~c.isneginf(), c).repeat(2, 1)


@dataclass(frozen=True)
class _Family:
    limit: int  # the decoder's maximum number of positions
    first: int  # the first token of a caption
    settings: Any  # the model's own generation settings
    # generate(pixels, start, guided, **options) returns token ids (rows, length), which include `start`. `pixels` are
    # floats (images, channels, height, width), and `start` is int64 (rows, length). If `guided`, there are twice as
    # many rows as images: those of the images, then those with zeros. `options` go to transformers' `generate`
    generate: Callable[..., Any]


class _Loaded(NamedTuple):
    """A model with its image processor and tokenizer."""

    family: _Family
    pixels: Any
    tokenizer: Any
    device: str
    dtype: Any


@dataclass(frozen=True)
class _Prepared:
    """A request ready to run: its index, the decoder's first token ids, and the maximum number to generate."""

    index: int
    picture: Any
    start: list[int]
    max_tokens: int


def _encoder_decoder(model: Any) -> _Family:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    # Apply the projection here, so that the decoder itself sees zeros instead of the projection's bias.
    project = getattr(model, "enc_to_dec_proj", torch.nn.Identity())
    model.enc_to_dec_proj = torch.nn.Identity()
    sizes = (getattr(model.config.decoder, name, None) for name in ("max_position_embeddings", "n_positions"))
    limit = next((int(size) for size in sizes if size), 1 << 30)
    settings = model.generation_config
    first = settings.bos_token_id if settings.decoder_start_token_id is None else settings.decoder_start_token_id

    def generate(pixels: Any, start: Any, guided: bool, **options: Any) -> Any:
        states = _with_zeros(project(model.encoder(pixel_values=pixels).last_hidden_state), guided)
        return model.generate(encoder_outputs=BaseModelOutput(states), decoder_input_ids=start, **options)

    return _Family(limit, first, settings, generate)


def _blip(model: Any) -> _Family:
    text = model.config.text_config
    settings = copy.deepcopy(model.text_decoder.generation_config)
    settings.eos_token_id, settings.pad_token_id = text.sep_token_id, text.pad_token_id

    def generate(pixels: Any, start: Any, guided: bool, **options: Any) -> Any:
        states = _with_zeros(model.vision_model(pixel_values=pixels).last_hidden_state, guided)
        masks = {"attention_mask": start.new_ones(start.shape)}
        masks["encoder_attention_mask"] = start.new_ones(states.shape[:2])
        return model.text_decoder.generate(input_ids=start, encoder_hidden_states=states, **masks, **options)

    return _Family(text.max_position_embeddings, text.bos_token_id, settings, generate)


def _git(model: Any) -> _Family:
    def generate(pixels: Any, start: Any, guided: bool, **options: Any) -> Any:
        # The model computes its prefix internally from pixels, so a hook adds the zeros.
        projection = model.git.visual_projection
        hook = projection.register_forward_hook(lambda _, __, states: _with_zeros(states, guided))
        try:
            return model.generate(start, attention_mask=start.new_ones(start.shape), pixel_values=pixels, **options)
        finally:
            hook.remove()

    config = model.config
    return _Family(config.max_position_embeddings, config.bos_token_id, model.generation_config, generate)


_FAMILIES = {"vision-encoder-decoder": _encoder_decoder, "blip": _blip, "git": _git}


def _with_zeros(states: Any, guided: bool) -> Any:
    import torch

    return torch.cat([states, torch.zeros_like(states)]) if guided else states


def _load(options: Guided, where: str, device: str) -> _Loaded:
    import transformers

    config = hf.load(where, lambda: transformers.AutoConfig.from_pretrained(options.model))
    if config.model_type not in _FAMILIES:
        problem = f"guidance does not support its model type {config.model_type!r}"
        raise RecipeError(f"{where}: {problem}; accepted: {', '.join(_FAMILIES)}")
    dtype = hf.to_dtype(options.precision)
    auto = transformers.AutoModelForImageTextToText
    model = hf.load(where, lambda: auto.from_pretrained(options.model, dtype=dtype))
    pixels = hf.load(where, lambda: transformers.AutoImageProcessor.from_pretrained(options.model))
    tokenizer = hf.load(where, lambda: transformers.AutoTokenizer.from_pretrained(options.model))
    loaded = _Loaded(_FAMILIES[config.model_type](model.to(device).eval()), pixels, tokenizer, device, dtype)
    if loaded.family.first is None:
        raise RecipeError(f"{where}: its generation config has neither decoder_start_token_id nor bos_token_id")
    return loaded


def _prepare(loaded: _Loaded, index: int, request: Request) -> _Prepared | Answer:
    if request.messages:
        return Answer(None, "refused: this model completes a prompt and does not accept chat messages")
    if request.image is None:
        return Answer(None, "no_image: the request has no image")
    try:
        picture = hf.open_picture(request.image)
    except Exception as error:  # decoders raise errors of many kinds
        return Answer(None, f"no_image: {one_line(error, 200)}")
    prompt = loaded.tokenizer(request.prompt or "", add_special_tokens=False)["input_ids"]
    start = [loaded.family.first, *prompt]
    room = loaded.family.limit - len(start)
    if room < 1:
        return Answer(None, f"too_long: the prompt takes {len(start)} of the model's {loaded.family.limit} positions")
    return _Prepared(index, picture, start, min(request.sampling.max_tokens, room))


def _answer(loaded: _Loaded, prepared: Sequence[_Prepared], gamma: float) -> list[Answer]:
    import torch

    guided = gamma != 1
    pixels = loaded.pixels([request.picture for request in prepared], return_tensors="pt")["pixel_values"]
    start = torch.tensor([request.start for request in prepared] * (2 if guided else 1), device=loaded.device)
    settings = copy.deepcopy(loaded.family.settings)
    room = prepared[0].max_tokens
    settings.update(do_sample=False, num_beams=1, max_length=None, max_new_tokens=room, use_cache=True)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if settings.pad_token_id is None:
        settings.pad_token_id = ends[0]
    processors = [partial(guide, gamma)] if guided else None
    with torch.inference_mode():
        pixels = pixels.to(loaded.device, loaded.dtype)
        outputs = loaded.family.generate(pixels, start, guided, generation_config=settings, logits_processor=processors)
    answers = []
    for request, tokens in zip(prepared, outputs[: len(prepared), start.shape[1] :].tolist(), strict=True):
        end = next((i for i, token in enumerate(tokens, 1) if token in ends), None)
        text = loaded.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        answers.append(Answer.of_tokens(text, len(request.start), len(tokens[:end]), "stop" if end else "length"))
    return answers
