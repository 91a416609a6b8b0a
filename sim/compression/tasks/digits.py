"""Cluttered digits: a seeded image task made from the 1,797 8x8 digits of scikit-learn.

Each image is a 24 x 24 canvas with one whole digit under a random affine map, fragments of
other digits as clutter, random contrast and Gaussian noise; the label is the whole digit. Source
digits of training and test images are disjoint (every fourth goes to the test set); validation
images are other draws from the training digits. All
randomness comes from one `numpy.random.Generator` (PCG64) in a fixed order and the arithmetic is
IEEE double with one final rounding to uint8, so that a seed gives the same bytes everywhere.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998
(doi:10.24432/C50P49), as shipped in `sklearn.datasets.load_digits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sim.compression.tasks.tensors import shuffled
from sim.compression.training import Score
from sim.errors import WorkloadError

CANVAS = 24
DATA_SEED = 0
"""The data set is fixed; a run's seed changes initial weights and the order of batches."""
CLUTTER = 2
"""Fragments per image."""
NOISE = 0.10
"""Standard deviation of the noise in units of full ink."""


PARTS = ("train", "test", "validation")
"""Each has its own random stream; choices (which layer takes which width) are made on the last."""
VALIDATION_IMAGES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """`pixels` is uint8 [n, 1, 24, 24], `labels` int64 [n]."""

    pixels: np.ndarray
    labels: np.ndarray

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels centred and scaled to about unit variance, float32, and labels."""
        return (torch.from_numpy(self.pixels).float() - 64.0) / 64.0, torch.from_numpy(self.labels)


@lru_cache(maxsize=3)
def sources(part: str) -> tuple[np.ndarray, np.ndarray]:
    """The 8x8 source digits of a part: ink in [0, 1], [n, 8, 8], and labels. Validation shares those of training."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise WorkloadError(
            "the digits task needs scikit-learn: pip install scikit-learn, or in a checkout pip install -e '.[quant]'"
        ) from error
    data = load_digits()
    is_test = np.arange(len(data.target)) % 4 == 3
    chosen = is_test if part == "test" else ~is_test
    return data.images[chosen] / 16.0, data.target[chosen].astype(np.int64)


@lru_cache(maxsize=8)
def generate(part: str, count: int, seed: int) -> Images:
    """`count` images of a part ("train", "test", "validation"); different seeds are independent."""
    rng = np.random.default_rng([seed, PARTS.index(part)])
    ink, labels = sources(part)
    pixels = np.empty((count, 1, CANVAS, CANVAS), np.uint8)
    chosen = rng.integers(0, len(labels), count)
    for start in range(0, count, 1000):
        pick = chosen[start : start + 1000]
        pixels[start : start + 1000, 0] = _render(ink, pick, rng)
    return Images(pixels=pixels, labels=labels[chosen])


def _render(ink: np.ndarray, pick: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(pick)
    canvas = np.zeros((n, CANVAS, CANVAS))
    for _ in range(CLUTTER):
        fragments = _fragments(ink[rng.integers(0, len(ink), n)], rng)
        angle = rng.uniform(0, 2 * np.pi, n)
        radius = rng.uniform(8.5, 12, n)
        centre = np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)
        canvas = np.maximum(canvas, _place(fragments, centre, _affine(rng, n, turn=np.pi, scale=(1.2, 2.0))))
    centre = rng.uniform(-2.5, 2.5, (n, 2))
    canvas = np.maximum(canvas, _place(ink[pick], centre, _affine(rng, n, turn=0.35, scale=(1.5, 2.4))))
    contrast = rng.uniform(0.5, 1.0, (n, 1, 1))
    canvas = 0.1 + 0.75 * contrast * canvas + NOISE * rng.standard_normal(canvas.shape)
    return np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8)


def _fragments(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One half of each digit (left, right, top or bottom), so that clutter is never a digit."""
    side = rng.integers(0, 4, len(digits))
    rows, cols = np.mgrid[:8, :8]
    halves = np.stack([cols < 4, cols >= 4, rows < 4, rows >= 4])
    return digits * halves[side]


def _affine(rng: np.random.Generator, n: int, *, turn: float, scale: tuple[float, float]) -> np.ndarray:
    """Matrices [n, 2, 2] from canvas to source offsets: rotation, shear, anisotropic scale."""
    angle = rng.uniform(-turn, turn, n)
    shear = rng.uniform(-0.35, 0.35, n)
    zoom = rng.uniform(*scale, (n, 2))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.empty((n, 2, 2))
    matrix[:, 0, 0], matrix[:, 0, 1] = cos / zoom[:, 0], -sin / zoom[:, 0]
    matrix[:, 1, 0], matrix[:, 1, 1] = (sin + shear * cos) / zoom[:, 1], (cos - shear * sin) / zoom[:, 1]
    return matrix


def _place(digits: np.ndarray, centre: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear samples of 8x8 digits under an affine map, [n, 24, 24]; outside is 0."""
    axis = np.arange(CANVAS) - (CANVAS - 1) / 2
    rows = axis[None, :, None] - centre[:, 0, None, None]
    cols = axis[None, None, :] - centre[:, 1, None, None]
    m = matrix[:, :, :, None, None]
    # One ring of zeros around the digit makes every clipped sample read 0.
    y = np.clip(m[:, 0, 0] * rows + m[:, 0, 1] * cols + 4.5, 0, 8.999)
    x = np.clip(m[:, 1, 0] * rows + m[:, 1, 1] * cols + 4.5, 0, 8.999)
    padded = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    i, j = y.astype(np.intp), x.astype(np.intp)
    fy, fx = y - i, x - j
    image = np.arange(len(digits))[:, None, None]
    top = padded[image, i, j] * (1 - fx) + padded[image, i, j + 1] * fx
    bottom = padded[image, i + 1, j] * (1 - fx) + padded[image, i + 1, j + 1] * fx
    return top * (1 - fy) + bottom * fy


class DigitsTask:
    """Ten-way classification. Inputs float32 [batch, 1, 24, 24], targets int64 [batch]."""

    name = "cluttered-digits"

    def __init__(
        self, *, train_images: int = 24_000, test_images: int = 10_000, batch_size: int = 64, steps: int = 3000
    ) -> None:
        self.train_images, self.test_images = train_images, test_images
        self.batch_size, self.steps = batch_size, steps
        self.learning_rate = 5e-3

    def batch(self, *, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = self._tensors("train", self.train_images)
        per_epoch = len(labels) // self.batch_size
        epoch, position = divmod(step, per_epoch)
        order = shuffled(seed, epoch, len(labels))[position * self.batch_size :][: self.batch_size]
        return inputs[order], labels[order]

    @lru_cache(maxsize=4)  # noqa: B019 (a task lives as long as its data is wanted)
    def _tensors(self, part: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return generate(part, count, DATA_SEED).tensors()

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(output, target)

    def calibration(self, count: int) -> torch.Tensor:
        return self._tensors("train", self.train_images)[0][:count]

    def evaluate(self, module: nn.Module, *, limit: int | None = None, part: str = "test") -> Score:
        """Accuracy in percent; `per_example` is 100 for a right answer, else 0."""
        inputs, labels = self._tensors(part, self.test_images if part == "test" else VALIDATION_IMAGES)
        inputs, labels = inputs[:limit], labels[:limit]
        module.eval()
        with torch.no_grad():
            right = torch.cat(
                [module(inputs[i : i + 500]).argmax(1) == labels[i : i + 500] for i in range(0, len(labels), 500)]
            )
        per_example = 100.0 * right.float()
        return Score(
            metric="accuracy %", value=per_example.mean().item(), per_example=per_example, higher_is_better=True
        )
