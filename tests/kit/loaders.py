"""open_clip's loader over the shards of a run."""

from types import SimpleNamespace

import numpy as np
import pytest

open_clip_data = pytest.importorskip("open_clip_train.data", reason="open_clip_torch[training] is not installed")


def shards_of(ran):
    return [str(path) for path in sorted(ran.folder.glob("shards/*.tar"))]


def braces(ran):
    return f"{ran.folder}/shards/{{00000..{len(shards_of(ran)) - 1:05d}}}.tar"


def loader(ran, batch_size, is_train):
    import torch

    def to_tensor(picture):
        return torch.from_numpy(np.array(picture.convert("RGB").resize((8, 8)), np.uint8))

    names = {"train_data": braces(ran), "val_data": braces(ran), "train_num_samples": None, "val_num_samples": None}
    names |= {"train_data_upsampling_factors": None, "dataset_resampled": False, "batch_size": batch_size}
    args = SimpleNamespace(**names, workers=0, world_size=1, seed=0)
    return open_clip_data.get_wds_dataset(args, to_tensor, is_train=is_train, tokenizer=lambda text: [text])
