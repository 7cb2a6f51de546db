"""Tiny detectors with random weights, and the mark of tests that need TextBlob."""

import importlib.util

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

needs_textblob = pytest.mark.skipif(not importlib.util.find_spec("textblob"), reason="TextBlob is not installed")

WORDS = [
    "[PAD]", "[BOS]", "[UNK]", ".", "red", "blue", "green", "dog", "cat", "tree", "car", "sky", "small", "big",
    "[EOS]",
]  # fmt: skip
BOS, EOS = 1, len(WORDS) - 1
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", None, [("[BOS]", BOS), ("[EOS]", EOS)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=16, **names)


def owl(name):
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "bos_token_id": BOS, "eos_token_id": EOS}
    vision = TOWER | {"image_size": 32, "patch_size": 8}
    sections = {"text_config": TOWER | text | {"pad_token_id": 0}, "vision_config": vision}
    config = getattr(transformers, f"{name}Config")(projection_dim=32, **sections)
    pixels = getattr(transformers, f"{name}ImageProcessor")(size={"height": 32, "width": 32})
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    return model, getattr(transformers, f"{name}Processor")(pixels, tokenizer())


def grounding_dino():
    stages = {"depths": [1, 1, 1], "num_heads": [1, 1, 2], "out_features": ["stage1", "stage2", "stage3"]}
    attention = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, **attention}
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(image_size=64, patch_size=4, embed_dim=8, window_size=4, **stages),
        text_config=transformers.BertConfig(vocab_size=len(WORDS), **TOWER),
        **{"d_model": 32, "num_queries": 12, "max_text_len": 64, "num_feature_levels": 3, **sizes},
    )
    pixels = transformers.GroundingDinoImageProcessor(size={"height": 64, "width": 64})
    model = transformers.GroundingDinoForObjectDetection(config)
    return model, transformers.GroundingDinoProcessor(pixels, tokenizer())


MODELS = {"owlvit": lambda: owl("OwlViT"), "owlv2": lambda: owl("Owlv2"), "grounding-dino": grounding_dino}


def save(name, folder):
    """Save a detector whose boxes and scores differ; as initialized, each box is a point or everything."""
    model, processor = MODELS[name]()
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
