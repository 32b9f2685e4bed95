"""The words of the page: its model families in order, and what stages, figures and metrics are called."""

from __future__ import annotations

from dataclasses import dataclass

from models.generator import kinds

SYMBOLS = {  # how the field writes what metrics.json can only spell
    "psnr": "PSNR", "ssim": "SSIM", "rfwd": "rFWD", "gfwd": "gFWD", "fwd": "FWD", "rmse": "RMSE",
    "mse": "MSE", "nll": "NLL", "abs rel": "AbsRel", "delta1": "δ₁",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A section of the page: the stages whose results it shows, and its headline metric."""

    id: str
    title: str
    lead: str
    training: tuple[str, ...]  # stage names before the "@", in the order they run
    evaluation: tuple[str, ...]  # names under evaluate/; a generator's are its kinds
    headline: str
    says: str
    shows: str  # the figure of which the page's head shows a detail


FAMILIES = (
    Family(
        "tokenizer",
        "Tokenizer",
        "An image becomes a short row of discrete tokens and comes back. Everything the generator can draw has to "
        "fit through here.",
        ("proxy", "tokenizer-warmup", "tokenizer"),
        ("tokenizer",),
        "psnr",
        "PSNR of held-out images after a trip through their tokens.",
        "reconstructions",
    ),
    Family(
        "generator",
        "Generator",
        "Asked for a class, it draws a row of tokens in a few parallel steps; the tokenizer turns them into a picture.",
        ("generator",),
        tuple(kinds.names()),
        "gfwd",
        "Fréchet wavelet distance of its samples to held-out images: the lower, the more alike.",
        "samples",
    ),
    Family(
        "depth",
        "Depth",
        "A teacher learns exact depth from rendered scenes and labels photographs; a smaller student learns from "
        "those labels alone.",
        ("depth-teacher", "pseudo-labels", "depth-student"),
        ("depth",),
        "delta1",
        "The student's share of pixels, on held-out scenes, within a quarter of the true depth.",
        "panels",
    ),
)

TRAINING = {  # how a stage is called on the page, by its name before the "@"
    "proxy": "Proxy: a VQGAN whose grid of codes the tokenizer first learns to predict",
    "tokenizer-warmup": "Warm-up: predicting the proxy's codes from a row of tokens",
    "tokenizer": "Fine-tuning: from tokens to pixels",
    "generator": "Training",
    "depth-teacher": "Teacher: exact depth of rendered scenes",
    "pseudo-labels": "The teacher's labels on photographs",
    "depth-student": "Student: the teacher's labels only",
}

# What a figure shows, in one line: by its name, or by stage and name where stages differ.
CAPTIONS = {
    "reconstructions": "Held-out images, each with what comes back from its codes on its right.",
    "evaluate@tokenizer/reconstructions": "Held-out images of every class, what comes back from their tokens, and "
    "twice the difference.",
    "codebook": "How often each code is used, the most used first: the flatter, the better the codebook is used.",
    "samples": "Generated images, one class per row, with the share in which the classifier sees that class.",
    "nearest": "The samples closest to any training image, each beside that image: copies would show here.",
    "panels": "Held-out scenes of every class, what the models see in them, and the exact depth. Red is near.",
    "motorcycle": "A real photograph that no model has seen (Middlebury 2014), with its measured depth.",
    "held_out": "Held-out scenes, predicted depth, exact depth. Red is near.",
    "photos": "Tiles of photographs, each with the teacher's label on its right.",
    "scenes": "Scenes, of which only the pictures are used here, each with the teacher's label on its right.",
    "statistics": "Brightness, contrast and valid depth of every sample; scenes per class.",
}


ASIDE = ("codebook", "nearest")  # figures that an evaluation adds for those who look closer; shown smaller


def caption(stage: str, figure: str) -> str:
    """The line under a figure; one that is not known here is called by its name."""
    return CAPTIONS.get(f"{stage}/{figure}") or CAPTIONS.get(figure) or f"{label(figure)}."


def label(name: str) -> str:
    """A metric's or figure's name as words: "motorcycle_abs_rel" is "Motorcycle AbsRel"."""
    words = f" {name} ".replace("_", " ")
    for plain, written in SYMBOLS.items():
        words = words.replace(f" {plain} ", f" {written} ")
    words = words.strip()
    return words if words.startswith(tuple(SYMBOLS.values())) else words[:1].upper() + words[1:]


def stage_title(stage: str) -> str:
    """A training stage's heading: "depth-student@small" is "Student: the teacher's labels only (small)"."""
    base, _, kind = stage.partition("@")
    return TRAINING[base] + (f" ({kind})" if kind else "")
