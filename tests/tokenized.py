"""Tiny scenes, an untrained tokenizer and tokens as if it had written them: what generators learn from, in a second."""

import json

import numpy as np
import torch
from safetensors.torch import save_file

from data.core import manifest, shards
from data.core.samples import encode_disparity, encode_png
from models.tokenizer.tokenizer import Tokenizer

CLASSES = ["red", "green", "blue"]


def make_scenes(folder):
    """16 pictures of each of three colours, one in four held out."""
    random = np.random.default_rng(0)
    images = {}
    for i in range(48):
        noise = random.integers(0, 60, (32, 32, 3))
        noise[8 * (i % 3) : 8 * (i % 3) + 8, :, i % 3] += 150
        images[f"{i:08d}"] = noise.astype(np.uint8)
    flat = encode_disparity(np.full((32, 32), 0.5))
    entries = shards.write(
        folder, "scenes", ((k, {"rgb.png": encode_png(v), "disp.png": flat}) for k, v in images.items()), 48
    )
    rows = []
    for i, entry in enumerate(entries):
        known = {"label": i % 3, "class_name": CLASSES[i % 3], "split": "val" if i % 4 == 0 else "train"}
        rows.append(manifest.row(entry, images[entry.key], source="test", licence="CC0-1.0", **known))
    manifest.write(rows, folder)
    (folder / "info.json").write_text(json.dumps({"classes": CLASSES}))


def make_tokenizer(folder, seed):
    torch.manual_seed(seed)
    titok = {"image_size": 32, "patch": 8, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2}
    titok |= {"latents": 4, "token_dim": 4, "codes": 16, "proxy_grid": 8, "proxy_codes": 8}
    config = {"titok": titok, "pixels": {"channels": [8, 8], "blocks": 1, "stem": 2, "code_dim": 4}}
    folder.mkdir(parents=True)
    save_file(Tokenizer(**config).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def make_tokens(folder, tokenizer):
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    stored = {}
    for split, rows in (("train", 40), ("val", 12)):
        stored[f"{split}_tokens"] = torch.randint(16, (rows, 4), generator=random, dtype=torch.int32)
        stored[f"{split}_labels"] = torch.arange(rows) % 3
    save_file(stored, folder / "tokens.safetensors")
    (folder / "info.json").write_text(json.dumps({"classes": CLASSES, "codes": 16, "tokenizer": tokenizer}))
