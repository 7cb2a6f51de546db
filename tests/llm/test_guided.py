"""Guided decoding, compared with its definition: two full forward passes per step, no cache, one image at a time."""

import copy
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import RecipeError
from curate.llm.engine import Message, Request, Sampling
from curate.llm.guided import Guided, GuidedEngine

pytestmark = pytest.mark.thorough

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "the", "of", "on", "with", "red", "blue", "dog", "cat", "tree",
    "car", "sky", "photo",
]  # fmt: skip
PAD, CLS, SEP, DEC = 0, 2, 3, 4
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIZE = {"image_size": 24, "patch_size": 8}


def save_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", CLS), ("[SEP]", SEP)])
    names = {
        "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "bos_token": "[DEC]",
    }  # fmt: skip
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


def stir(model, seed):
    """Enlarge the weights, so that images and tokens matter; with the initial weights, every step gives one token."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.35 if "embed" not in name else 0.6)
            elif "bias" in name:
                weight.normal_(0, 0.2)
    return model.eval()


def encoder_decoder(decoder):
    vit = transformers.ViTConfig(**VISION, **SIZE)
    if decoder == "gpt2":  # of another width: with a projection
        text = transformers.GPT2Config(vocab_size=len(WORDS), n_positions=32, n_embd=24, n_layer=2, n_head=2)
    else:
        text = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **VISION)
    text.is_decoder = text.add_cross_attention = True
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = DEC, PAD, SEP
    model = transformers.VisionEncoderDecoderModel(config)
    for name in ("decoder_start_token_id", "pad_token_id", "eos_token_id"):
        setattr(model.generation_config, name, getattr(config, name))
    return model, transformers.ViTImageProcessor(size={"height": 24, "width": 24})


def blip():
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 32, "encoder_hidden_size": 32, "projection_dim": 16}
    text |= {"bos_token_id": DEC, "eos_token_id": CLS, "pad_token_id": PAD, "sep_token_id": SEP, "is_decoder": True}
    config = transformers.BlipConfig(vision_config=VISION | SIZE, text_config=VISION | text, projection_dim=16)
    pixels = transformers.BlipImageProcessor(size={"height": 24, "width": 24})
    return transformers.BlipForConditionalGeneration(config), pixels


def git():
    ids = {"bos_token_id": DEC, "eos_token_id": SEP, "pad_token_id": PAD}
    text = VISION | {"vocab_size": len(WORDS), "max_position_embeddings": 32, **ids}
    size = {"height": 24, "width": 24}
    pixels = transformers.CLIPImageProcessor(size=size, crop_size=size)
    return transformers.GitForCausalLM(transformers.GitConfig(vision_config=VISION | SIZE, **text)), pixels


MODELS = {"gpt2": lambda: encoder_decoder("gpt2"), "bert": lambda: encoder_decoder("bert"), "blip": blip, "git": git}
SEEDS = {"gpt2": 24, "bert": 15, "blip": 17, "git": 3}  # with which captions differ, and end at different steps


def save(name, folder):
    model, pixels = MODELS[name]()
    stir(model, SEEDS[name]).save_pretrained(folder)
    pixels.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp("models") / request.param)


def file_of(seed):
    """A PNG of noise in large squares."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((40, 30), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


FILES = [file_of(seed) for seed in range(7)]


def asked(image, prompt=None, tokens=10, **more):
    return Request(
        "0" * 32, "recaption", "guided", 0, prompt, image=image, sampling=Sampling(max_tokens=tokens), **more
    )


def engine(folder, gamma, batch=16):
    return GuidedEngine(Guided(model=str(folder), gamma=gamma, device="cpu", batch=batch))


class Definition:
    """Greedy decoding by the formula, written from the paper: full passes over one image, the image's embeddings zeroed."""

    def __init__(self, folder):
        self.name = transformers.AutoConfig.from_pretrained(folder).model_type
        kind = {"blip": "BlipForConditionalGeneration", "git": "GitForCausalLM"}
        self.model = getattr(transformers, kind.get(self.name, "VisionEncoderDecoderModel")).from_pretrained(folder)
        self.masked = copy.deepcopy(self.model)
        if self.name == "git":  # a layer norm without weight and bias gives zeros
            norm = self.masked.git.visual_projection.visual_projection[1]
            norm.weight.data.zero_()
            norm.bias.data.zero_()
        self.pixels = transformers.AutoImageProcessor.from_pretrained(folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def see(self, data):
        return self.pixels(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt").pixel_values

    def conditional(self, pixels, ids):
        names = {"vision-encoder-decoder": "decoder_input_ids"}
        return self.model(pixel_values=pixels, **{names.get(self.name, "input_ids"): ids}).logits[0, -1]

    def unconditional(self, pixels, ids):
        if self.name == "git":
            return self.masked(pixel_values=pixels, input_ids=ids).logits[0, -1]
        if self.name == "blip":
            zeros = torch.zeros_like(self.model.vision_model(pixels).last_hidden_state)
            return self.model.text_decoder(ids, encoder_hidden_states=zeros).logits[0, -1]
        wide = (1, self.model.encoder(pixels).last_hidden_state.shape[1], self.model.decoder.config.hidden_size)
        return self.model.decoder(ids, encoder_hidden_states=torch.zeros(wide)).logits[0, -1]

    def caption(self, data, gamma, prompt="", tokens=10, banned=(), least=0):
        """The text, the number of tokens, and why it ended."""
        pixels = self.see(data)
        ids = [DEC, *(WORDS.index(word) for word in prompt.split())]
        new = []
        while len(new) < tokens and SEP not in new:
            given = torch.tensor([ids + new])
            with torch.no_grad():
                c, u = self.conditional(pixels, given), self.unconditional(pixels, given)
            logits = u + gamma * (c - u)
            logits[[*banned, *([SEP] if len(new) < least else [])]] = -torch.inf
            new.append(int(logits.argmax()))
        return self.tokenizer.decode(new, skip_special_tokens=True), len(new), "stop" if SEP in new else "length"


@pytest.fixture(scope="module")
def definition(folder):
    return Definition(folder)


def told(answers):
    return [(answer.text or "", answer.tokens_out, answer.finish) for answer in answers]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5])  # 0 ignores the image, and 1 is plain decoding
def test_captions_are_those_of_the_definition(folder, definition, gamma):
    answers = engine(folder, gamma).ask([asked(data) for data in FILES])
    assert told(answers) == [definition.caption(data, gamma) for data in FILES]
    assert all(answer.error is None or answer.error.startswith("empty: ") for answer in answers)
    assert (len(set(told(answers))) == 1) == (gamma == 0)


def test_an_answer_goes_on_with_the_prompt(folder, definition):
    prompts = ["a photo of", "red", "a photo of", "", "blue dog on", "the", "a"]
    requests = [asked(data, prompt) for data, prompt in zip(FILES, prompts, strict=True)]
    answers = engine(folder, 2.0).ask(requests)
    assert told(answers) == [definition.caption(d, 2.0, p) for d, p in zip(FILES, prompts, strict=True)]
    assert [answer.tokens_in for answer in answers] == [1 + len(prompt.split()) for prompt in prompts]


@pytest.mark.slow
def test_batches_orders_and_lengths_change_nothing(folder):
    requests = [asked(data, prompt, tokens) for data in FILES for prompt, tokens in (("", 10), ("a red", 4), ("", 3))]
    expected = told(engine(folder, 2.0).ask(requests))
    assert all(count <= request.sampling.max_tokens for (_, count, _), request in zip(expected, requests, strict=True))
    assert told(engine(folder, 2.0, batch=2).ask(requests)) == expected
    order = np.random.default_rng(0).permutation(len(requests))
    assert told(engine(folder, 2.0).ask([requests[i] for i in order])) == [expected[i] for i in order]
    assert engine(folder, 2.0).ask([]) == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["gpt2", "bert", "git"], indirect=True)  # BLIP's decoder reads no settings from disk
def test_what_the_model_forbids_stays_forbidden(folder, definition, tmp_path):
    path = tmp_path / "strict"
    shutil.copytree(folder, path)
    words = " ".join(text for text, _, _ in told(engine(folder, 2.0).ask([asked(data) for data in FILES]))).split()
    often = WORDS.index(max(words, key=words.count))
    settings = copy.deepcopy(definition.model.generation_config)
    settings.suppress_tokens, settings.min_new_tokens = [often], 4
    settings.save_pretrained(path)
    for gamma in (1.0, 2.0):
        answers = engine(path, gamma).ask([asked(data) for data in FILES])
        assert told(answers) == [definition.caption(data, gamma, banned=(often,), least=4) for data in FILES]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A folder with the smallest model."""
    return save("blip", tmp_path_factory.mktemp("one") / "captioner")


def test_requests_that_cannot_be_asked_cost_no_other(one):
    cut = FILES[0][:60]
    requests = [
        asked(FILES[0]), asked(None), asked(cut), asked(b"no image"),
        Request("0" * 32, "recaption", "guided", 0, messages=(Message("user", "what is it?"),), image=FILES[1]),
        asked(FILES[2], "a " * 40), asked(FILES[3]),
    ]  # fmt: skip
    answers = engine(one, 2.0).ask(requests)
    codes = [answer.error and answer.error.split(":")[0] for answer in answers]
    assert codes == [None, "no_image", "no_image", "no_image", "refused", "too_long", None]
    assert "41 of the model's 32 positions" in answers[5].error
    assert told([answers[0], answers[6]]) == told(engine(one, 2.0).ask([asked(FILES[0]), asked(FILES[3])]))


def test_text_ends_where_the_positions_do(one):
    answer = engine(one, 1.0).ask([asked(FILES[0], "a " * 28, tokens=100)])[0]
    assert answer.tokens_in == 29 and answer.tokens_out <= 3


def test_an_image_is_seen_upright_and_without_its_alpha(one):
    image = Image.open(io.BytesIO(FILES[0]))
    turned, exif, clear = io.BytesIO(), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    layer = image.convert("RGBA")
    layer.putalpha(255)
    layer.save(clear, "WEBP", lossless=True)
    answers = engine(one, 2.0).ask([asked(FILES[0]), asked(turned.getvalue()), asked(clear.getvalue())])
    assert len(set(told(answers))) == 1


def test_a_batch_that_fails_is_asked_in_halves(one):
    made = engine(one, 2.0, batch=5)
    expected, sizes = told(made.ask([asked(data) for data in FILES])), []
    with made._loaded.use() as loaded:
        family, generate = loaded.family, loaded.family.generate
        bad = loaded.pixels([Image.open(io.BytesIO(FILES[6]))], return_tensors="pt")["pixel_values"][0]

    def failing(pixels, *rest, **more):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if any(torch.equal(row, bad) for row in pixels):
            raise ValueError("a device-side\nassert")
        return generate(pixels, *rest, **more)

    object.__setattr__(family, "generate", failing)  # a frozen class
    *answers, failed = made.ask([asked(data) for data in FILES])
    assert told(answers) == expected[:6] and failed.error == "engine: a device-side assert"
    assert sizes == [5, 2, 3, 1, 2, 1, 1], "after the first batch, no larger one is tried"


def test_the_name_tells_weights_gamma_and_precision(one, tmp_path):
    other = tmp_path / "of another name"
    shutil.copytree(one, other)
    names = [engine(folder, 2.0).model for folder in (one, other)]
    assert names[0] == names[1] and str(one.parent) not in names[0], "a copy is the same model"
    assert re.match(r"[a-z-]+@[0-9a-f]{12} ", names[0]) and names[0].endswith(" guided gamma=2.0 fp32")
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert engine(other, 2.0).model != names[0]
    assert GuidedEngine(Guided(model="org/name", gamma=1.5, precision="bf16")).model == "org/name guided gamma=1.5 bf16"


def test_half_precision_runs(one):
    made = GuidedEngine(Guided(model=str(one), device="cpu", precision="bf16"))
    assert all(answer.text for answer in made.ask([asked(data) for data in FILES[:2]]))


def test_what_cannot_be_loaded_is_said(one, tmp_path, monkeypatch):
    transformers.ViTConfig(**VISION, **SIZE).save_pretrained(tmp_path / "vit")
    with pytest.raises(RecipeError, match=r"model type 'vit'; .*accepted: vision-encoder-decoder, blip, git"):
        engine(tmp_path / "vit", 2.0).check()
    with pytest.raises(RecipeError, match=r"guided .*nowhere: cannot be loaded: .*Accepted: a folder"):
        engine(tmp_path / "nowhere", 2.0).check()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        RecipeError, match=r"guided org/none: cannot be loaded: .*must be in the cache; HF_HUB_OFFLINE=1"
    ):
        engine(Path("org/none"), 2.0).check()
    bare = tmp_path / "bare"
    shutil.copytree(one, bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"bare: cannot be loaded: .*model\.safetensors"):
        engine(bare, 2.0).check()
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match=r"device is cuda, .* accepted: auto, cpu"):
            GuidedEngine(Guided(model=str(one), device="cuda")).check()
