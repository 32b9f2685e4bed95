"""Every metric of an evaluation, declared once: its name, which way is better, its unit and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """`name` is the key in metrics.json and in MLflow; `better` says which way is an improvement."""

    name: str
    better: Literal["higher", "lower"]
    unit: str
    summary: str

    def improves(self, new: float, old: float) -> bool:
        """Whether `new` is strictly better than `old`."""
        return new > old if self.better == "higher" else new < old


_ALL = (
    # tokenizer
    Metric("psnr", "higher", "dB", "peak signal-to-noise ratio of reconstructions of held-out images"),
    Metric("ssim", "higher", "", "structural similarity of reconstructions, 1 = identical"),
    Metric("rfwd", "lower", "", "Frechet wavelet distance of reconstructions to their originals"),
    Metric("codebook_usage", "higher", "%", "share of the codebook's entries that held-out images use"),
    Metric("codebook_perplexity", "higher", "codes", "effective number of codes in use"),
    Metric("proxy_psnr", "higher", "dB", "PSNR of the proxy VQGAN with all its 2-D codes: the ceiling of the warm-up"),
    Metric("proxy_cut_psnr", "higher", "dB", "PSNR of the proxy when cut to as many codes as the tokenizer has"),
    Metric("patch_grid", "lower", "", "squared steps of the error across the proxy's grid over those between, 1: none"),
    # generator
    Metric("gfwd", "lower", "", "Frechet wavelet distance of generated to held-out images"),
    Metric("real_fwd", "lower", "", "the same distance between training and held-out images: the floor of gfwd"),
    Metric("precision", "higher", "", "share of generated images that lie among the real ones (k-NN)"),
    Metric("recall", "higher", "", "share of real images that lie among the generated ones (k-NN): diversity"),
    Metric("class_agreement", "higher", "%", "share of generated images in which the probe sees the class asked for"),
    Metric("probe_accuracy", "higher", "%", "accuracy of the probe classifier on held-out real images"),
    Metric("novelty", "higher", "", "distance to the nearest training image, 1 = that of decoded held-out images"),
    # depth
    Metric("abs_rel", "lower", "", "mean |z - z*| / z* after scale-and-shift alignment"),
    Metric("delta1", "higher", "", "share of pixels with max(z / z*, z* / z) < 1.25"),
    Metric("rmse", "lower", "x nearest", "root mean squared depth error in units of each picture's nearest distance"),
    Metric("pair_accuracy", "higher", "%", "share of point pairs put in the right order (DA-2K's protocol)"),
    Metric("label_error", "lower", "", "scale-and-shift-invariant error of a student against its teacher's labels"),
    Metric("label_gradient_error", "lower", "", "gradient-matching error of a student against its teacher's labels"),
    Metric("motorcycle_abs_rel", "lower", "", "AbsRel on the motorcycle photograph (Middlebury 2014)"),
    Metric("motorcycle_delta1", "higher", "", "delta1 on the motorcycle photograph"),
    Metric("motorcycle_plane_abs_rel", "lower", "", "AbsRel of the best tilted plane on it: what to beat"),
    Metric("motorcycle_plane_delta1", "higher", "", "delta1 of the best tilted plane on it"),
)

METRICS: dict[str, Metric] = {m.name: m for m in _ALL}


def metric(name: str) -> Metric:
    """The declaration behind a key: a class suffix is allowed ("delta1_glass" is delta1). KeyError if unknown."""
    if name in METRICS:
        return METRICS[name]
    stem = max((n for n in METRICS if name.startswith(f"{n}_")), key=len, default="")
    if not stem:
        raise KeyError(f"metric '{name}' is not declared in models/metrics/__init__.py")
    return METRICS[stem]
