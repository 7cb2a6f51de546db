"""Small open_clip models with random weights, in folders as `local-dir:` takes them, and as graphs, as `onnx:` does."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def write_model(folder, seed=0, **changes):
    """Writes a model; returns its name for a recipe. `changes` are made to model_cfg, section by section."""
    config = {"embed_dim": 32, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)}
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(config.get(name), dict) else value
    text = json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(text)
    (folder / "open_clip_model.safetensors").write_bytes(_weights(text, seed))
    return f"local-dir:{folder}"


@cache
def _weights(config, seed):
    import open_clip
    import torch
    from safetensors.torch import save

    torch.manual_seed(seed)
    with TemporaryDirectory() as folder:
        (Path(folder) / "open_clip_config.json").write_text(config)
        made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return save({name: value.contiguous() for name, value in made.state_dict().items()})


def export_onnx(name, folder, joint=False, length=None):
    """Exports a model `local-dir:` with Hugging Face's file names; returns its name for a recipe.

    `joint`: one graph, with an attention mask as transformers' has one. `length`: of texts, fixed.
    """
    import open_clip
    import torch

    from curate.models.open_clip_encoder import encode_cut
    from curate.models.positions import text_tower

    net, _, _ = open_clip.create_model_and_transforms(name)
    tower = text_tower(net.eval())

    class Images(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = net.visual

        def forward(self, pixel_values):
            return self.visual(pixel_values)

    class Texts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.text = tower.holder

        def forward(self, input_ids):
            return encode_cut(tower, input_ids)

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.images, self.texts = Images(), Texts()

        def forward(self, input_ids, pixel_values, attention_mask):
            embeddings = self.texts(input_ids) * attention_mask[:, :1]  # which is 1
            return embeddings, self.images(pixel_values)

    config = json.loads((Path(name.removeprefix("local-dir:")) / "open_clip_config.json").read_text())
    size, context = config["model_cfg"]["vision_cfg"]["image_size"], tower.context_length
    pixels, ids = torch.zeros(2, 3, size, size), torch.full((2, length or 5), 49407)
    (folder / "onnx").mkdir(parents=True)
    n, m = torch.export.Dim("n", min=1), torch.export.Dim("m", min=1)
    of_ids = {0: n} | ({} if length else {1: torch.export.Dim("length", min=2, max=context - 1)})

    def write(module, name, inputs, outputs):
        torch.onnx.export(
            module.eval(), tuple(value for value, _ in inputs.values()), folder / "onnx" / name,
            input_names=list(inputs), output_names=outputs, dynamo=True, external_data=False, verbose=False, optimize=False,
            dynamic_shapes=tuple(shape for _, shape in inputs.values()),
        )  # fmt: skip

    if joint:
        inputs = {"input_ids": (ids, of_ids), "pixel_values": (pixels, {0: m}), "attention_mask": (ids * 0 + 1, of_ids)}
        write(Both(), "model.onnx", inputs, ["text_embeds", "image_embeds"])
    else:
        write(Images(), "vision_model.onnx", {"pixel_values": (pixels, {0: n})}, ["image_embeds"])
        write(Texts(), "text_model.onnx", {"input_ids": (ids, of_ids)}, ["text_embeds"])
    write_settings(folder, config)
    return f"onnx:{folder}"


def write_settings(folder, config):
    """Writes what Hugging Face's folders have beside the graphs, for the configuration of an open_clip folder."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    model, given = config["model_cfg"], config["preprocess_cfg"]
    size, text = model["vision_cfg"]["image_size"], model["text_cfg"]
    ours = {
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "text_config": {"max_position_embeddings": text["context_length"], "vocab_size": text["vocab_size"]},
        "vision_config": {"image_size": size},
    }
    square = {"height": size, "width": size}
    is_squashed = given.get("resize_mode") == "squash"
    pixels = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": square if is_squashed else {"shortest_edge": size},
        "resample": 2 if given.get("interpolation") == "bilinear" else 3,
        "do_center_crop": not is_squashed,
        **({} if is_squashed else {"crop_size": square}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": given.get("mean", OPENAI_DATASET_MEAN),
        "image_std": given.get("std", OPENAI_DATASET_STD),
    }
    (folder / "config.json").write_text(json.dumps(ours, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), ensure_ascii=False, separators=(",", ":")))


@cache
def tokenizer():
    """OpenAI's tokenizer as transformers writes it, of open_clip's vocabulary."""
    import open_clip

    simple = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(word, word): number for word, number in simple.encoder.items()}
    begin, end = ((name, vocab[name]) for name in names.values())
    split = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name, **flags, "normalized": True} for name, number in (begin, end)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing", "sep": end, "cls": begin, "trim_offsets": False, "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": end[0], "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": False, "vocab": vocab,
            "merges": [" ".join(pair) for pair in simple.bpe_ranks],
        },
    }  # fmt: skip
