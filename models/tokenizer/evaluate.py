"""Measure the tokenizer on held-out scenes.

    python -m models.tokenizer.evaluate --model artifacts/tokenizer --proxy artifacts/proxy --scenes artifacts/scenes \\
        --out artifacts/evaluate/tokenizer

Writes metrics.json, per_sample.parquet (key, class, psnr, ssim) and figures/: originals beside reconstructions and
their error by class, and how often each code is used. About 15 s on one core of an EPYC 9004.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from data.core import entry, params
from data.core.samples import Samples
from models.core import device, figures, stage
from models.core.checkpoint import files
from models.core.images import to_array, to_tensor, unit
from models.metrics import codebook, image
from models.metrics.fwd import fwd
from models.proxy.cut import decode_cut
from models.proxy.load import load as load_proxy
from models.proxy.vqgan import VQGAN
from models.tokenizer.encode import decode, encode
from models.tokenizer.params import EvaluateParams
from models.tokenizer.tokenizer import Tokenizer, load

BATCH = 64


def main() -> None:
    args = stage.arguments(__doc__, "model", "proxy", "scenes")
    p = params.load(EvaluateParams, "evaluate.tokenizer")
    inputs = {"model": args.model, "proxy": args.proxy, "scenes": args.scenes}
    with stage.open("evaluate@tokenizer", inputs, args.out, p) as run, torch.no_grad():
        net, proxy = load(args.model).to(device.best()), load_proxy(args.proxy).to(device.best())
        samples = Samples(args.scenes, "val")
        images = to_tensor(samples.images())
        seen = in_shards(net, proxy, images, p.per_shard * BATCH, run)
        tokens, restored, truth = seen["tokens"], seen["restored"], unit(images)
        psnr, ssim = image.psnr(restored, truth), image.ssim(restored, truth)
        run.save_metrics(
            {
                "psnr": float(psnr.mean()),
                "ssim": float(ssim.mean()),
                "rfwd": fwd(to_array(restored), to_array(images)),
                "patch_grid": image.patch_grid(restored, truth, images.shape[-1] // net.grid),
                **dict(codebook.usage(tokens.numpy(), net.codes)),
                "proxy_psnr": float(image.psnr(seen["proxy"], truth).mean()),
                "proxy_cut_psnr": float(image.psnr(seen["cut"], truth).mean()),
            }
        )
        write_samples(args.out, samples, psnr, ssim)
        by_class(samples, truth, restored, p.per_class).save(run.figure("reconstructions.png"))
        histogram(np.bincount(tokens.flatten().numpy(), minlength=net.codes)).save(run.figure("codebook.png"))


def in_shards(net: Tokenizer, proxy: VQGAN, images: Tensor, size: int, run: stage.Run) -> dict[str, Tensor]:
    """What tokenizer and proxy make of uint8 images (N, 3, H, W), in shards of `size` (whole batches) of them."""
    pieces = images.split(size)
    made = run.shards(len(pieces))
    for index in made.missing:
        made.make(index, partial(files.write, state=look(net, proxy, pieces[index])))
    found = [files.read(file) for file in made.files()]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def look(net: Tokenizer, proxy: VQGAN, images: Tensor) -> dict[str, Tensor]:
    """Tokens and the pictures they give back; the proxy's with all its codes, and with as many as there are tokens."""
    tokens = encode(net, images, BATCH)
    codes = device.in_batches(proxy, lambda part: proxy.encode(unit(part)), images, BATCH)
    return {
        "tokens": tokens,
        "restored": decode(net, tokens, BATCH),
        "proxy": device.in_batches(proxy, proxy.decode, codes, BATCH),
        "cut": device.in_batches(proxy, lambda part: decode_cut(proxy, part, tokens.shape[1]), codes, BATCH),
    }


def write_samples(out: Path, samples: Samples, psnr: Tensor, ssim: Tensor) -> None:
    """per_sample.parquet: one row per held-out picture."""
    columns = {
        "key": samples.keys,
        "class": [row["class_name"] for row in samples.rows],
        "psnr": psnr.float().numpy(),
        "ssim": ssim.float().numpy(),
    }
    pq.write_table(pa.table(columns), out / "per_sample.parquet", compression="zstd")


def by_class(samples: Samples, truth: Tensor, restored: Tensor, per_class: int) -> Image.Image:
    """A row per class: original, reconstruction and twice the absolute error, `per_class` times or as often as the
    rarest class allows; a class without held-out pictures has no row."""
    names = samples.class_names or [""]
    labels = samples.labels if samples.class_names else np.zeros(len(samples), np.int64)
    places = {name: np.flatnonzero(labels == label) for label, name in enumerate(names) if (labels == label).any()}
    shown = min(per_class, *(len(of_class) for of_class in places.values()))
    cells = []
    for of_class in places.values():
        chosen = of_class[:shown]
        error = (2 * (restored[chosen] - truth[chosen]).abs()).clamp(0, 1)
        cells.append(torch.stack([truth[chosen], restored[chosen], error], 1).flatten(0, 1))
    captions = ["original", "restored", "error x 2"] * shown
    return figures.tile(to_array(torch.cat(cells)), columns=3 * shown, captions=captions, row_labels=list(places))


def histogram(counts: np.ndarray) -> Image.Image:
    """How often each code is used, most used first: a flat picture is a codebook well used."""
    codes, used, share = len(counts), int((counts > 0).sum()), 100 * np.sort(counts)[::-1] / counts.sum()
    perplexity = dict(codebook.usage(np.repeat(np.arange(codes), counts), codes))["codebook_perplexity"]
    caption = f"{used:,} of {codes:,} codes in use, perplexity {perplexity:,.0f}"
    return figures.ranked(share, caption, "codes, most used first", "% of all tokens", (100 / codes, "even use"))


if __name__ == "__main__":
    entry.run(main, parts=True)
