"""The demo's CLIP as ONNX graphs of 2.5 MB, `curate/demo/clip`, and back: `export` and `restore`.

Weights are float16 there, cast when the graphs are loaded, and of the words that no caption uses, which share a row of the
embedding, there is one row. Initializers keep open_clip's names, so that open_clip's checkpoint comes back from them.
"""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.kit.clips import export_onnx

FOLDER = Path(str(files("curate.demo"))) / "clip"
WORDS = "text.token_embedding.weight"
LICENCE = """\
We trained `vision_model.onnx` and `text_model.onnx` for curate (`tests/demo/train_clip.py`). They have curate's license.

`tokenizer.json` is the vocabulary of OpenAI's CLIP: MIT License, Copyright (c) 2021 OpenAI. The permission notice is the same as in curate's
LICENSE.
"""


def export(name, folder):
    """Writes the folder of a model `local-dir:` whose weights are float16's."""
    export_onnx(name, folder)
    for path in (folder / "onnx").iterdir():
        model = onnx.load(path)
        compact(model)
        onnx.checker.check_model(model)
        path.rename(folder / path.name)
        onnx.save(model, folder / path.name)
    (folder / "onnx").rmdir()
    (folder / "README.md").write_text(LICENCE)


def compact(model):
    """Makes weights float16, and one of equal rows of the words' embedding; what the exporter says of itself is left out."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    kept, casts = [], []
    for name, value in weights.items():
        if value.dtype != np.float32 or not value.ndim or name.endswith("attn_mask"):
            kept.append((name, value))
            continue
        assert (value == value.astype(np.float16)).all(), name
        if name == WORDS:
            rows, of = np.unique(value, axis=0, return_inverse=True)
            kept += [(f"{name}.rows", rows.astype(np.float16)), (f"{name}.of", of.ravel().astype(np.uint16))]
            casts += [cast(f"{name}.rows", "rows", TensorProto.FLOAT), cast(f"{name}.of", "of", TensorProto.INT64)]
            continue
        kept.append((f"{name}.half", value.astype(np.float16)))
        casts.append(cast(f"{name}.half", name, TensorProto.FLOAT))
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in kept)
    nodes = list(model.graph.node)
    for at, node in enumerate(nodes):
        if WORDS in node.input:  # of ids, the rows; of rows, the vectors
            nodes[at : at + 1] = [
                helper.make_node("Gather", ["of", node.input[1]], ["row"]),
                helper.make_node("Gather", ["rows", "row"], list(node.output)),
            ]
            break
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])


def cast(name, to, kind):
    return helper.make_node("Cast", [name], [to], to=kind)


def restore(folder):
    """Writes the demo's CLIP as open_clip takes it; returns its name."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from tests.demo.train_clip import MODEL_CFG, PREPROCESS_CFG  # which imports this

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    net = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    state = net.state_dict()
    for name, value in stored().items():
        state[name.removeprefix("text.")] = torch.from_numpy(value)
    net.load_state_dict(state)
    save_file(
        {name: value.contiguous() for name, value in net.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return f"local-dir:{folder}"


def stored():
    """The weights of the demo's graphs, by open_clip's names; those of the text tower begin with `text.`."""
    found = {
        one.name: numpy_helper.to_array(one)
        for path in sorted(FOLDER.glob("*.onnx"))
        for one in onnx.load(path).graph.initializer
    }
    halves = {name.removesuffix(".half"): value for name, value in found.items() if name.endswith(".half")}
    halves[WORDS] = found[f"{WORDS}.rows"][found[f"{WORDS}.of"]]
    return {name: value.astype(np.float32) for name, value in halves.items()}
