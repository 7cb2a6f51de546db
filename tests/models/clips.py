"""Small open_clip models with random weights, in folders as `local-dir:` takes them."""

import json
from pathlib import Path
from typing import Any

VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def write_model(folder: Path, seed: int = 0, **changes: Any) -> str:
    """Writes a model; returns its name for a recipe. `changes` are made to model_cfg, section by section."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config: dict[str, Any] = {"embed_dim": 32, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)}
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(config.get(name), dict) else value
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_file(
        {name: value.contiguous() for name, value in made.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return f"local-dir:{folder}"
