"""Convolution layers of published networks, as the papers' tables give them; batch 1, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvLayer:
    """`groups` equal convolutions; c and k are all channels; p columns and q rows of output."""

    name: str
    c: int
    k: int
    p: int
    q: int
    r: int
    s: int
    stride: int = 1
    groups: int = 1
    input_side: int | None = None
    """Input side without padding; None: p and q x stride."""
    stored: bool = True
    """False: the second operand is an activation as well (the products of attention), no parameter."""

    @property
    def macs(self) -> int:
        return self.k * self.p * self.q * self.r * self.s * (self.c // self.groups)

    @property
    def weights(self) -> int:
        return self.k * self.r * self.s * self.c // self.groups

    @property
    def parameters(self) -> int:
        """Weights and one bias per output channel (normalisation folded in)."""
        return self.weights + self.k if self.stored else 0

    @property
    def inputs(self) -> int:
        if self.input_side:
            return self.c * self.input_side**2
        return self.c * self.p * self.q * self.stride**2

    @property
    def outputs(self) -> int:
        return self.k * self.p * self.q


def square(
    name: str,
    c: int,
    k: int,
    side: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    input_side: int | None = None,
) -> ConvLayer:
    """A layer with a square kernel and a square output of this side."""
    return ConvLayer(
        name=name, c=c, k=k, p=side, q=side, r=kernel, s=kernel, stride=stride, groups=groups, input_side=input_side
    )


def alexnet() -> tuple[ConvLayer, ...]:
    """Five convolutions of AlexNet with its two groups (Krizhevsky et al., NIPS 2012)."""
    return (
        square("CONV1", 3, 96, 55, 11, 4, input_side=227),
        square("CONV2", 96, 256, 27, 5, groups=2),
        square("CONV3", 256, 384, 13, 3),
        square("CONV4", 384, 384, 13, 3, groups=2),
        square("CONV5", 384, 256, 13, 3, groups=2),
    )


def vgg16() -> tuple[ConvLayer, ...]:
    """Thirteen convolutions of VGG-16 (Simonyan and Zisserman, ICLR 2015)."""
    plan = ((224, (64, 64)), (112, (128, 128)), (56, (256,) * 3), (28, (512,) * 3), (14, (512,) * 3))
    layers, c = [], 3
    for block, (side, widths) in enumerate(plan, start=1):
        for index, k in enumerate(widths, start=1):
            layers.append(square(f"CONV{block}-{index}", c, k, side, 3))
            c = k
    return tuple(layers)


def resnet50() -> tuple[ConvLayer, ...]:
    """Convolutions and classifier of ResNet-50, stride in the 3x3 (He et al., CVPR 2016; v1.5)."""
    layers = [square("conv1", 3, 64, 112, 7, 2)]
    c = 64
    for stage, (blocks, mid, side) in enumerate(((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)), start=2):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            name = f"conv{stage}_{block + 1}"
            layers += [
                square(f"{name}a", c, mid, side * stride, 1),
                square(f"{name}b", mid, mid, side, 3, stride),
                square(f"{name}c", mid, 4 * mid, side, 1),
            ]
            if block == 0:
                layers.append(square(f"{name}p", c, 4 * mid, side, 1, stride))
            c = 4 * mid
    layers.append(square("fc", 2048, 1000, 1, 1))
    return tuple(layers)


def inception_v1() -> tuple[ConvLayer, ...]:
    """Convolutions and classifier of GoogLeNet (Szegedy et al., CVPR 2015, table 1)."""
    modules = (
        (28, 192, 64, 96, 128, 16, 32, 32), (28, 256, 128, 128, 192, 32, 96, 64),
        (14, 480, 192, 96, 208, 16, 48, 64), (14, 512, 160, 112, 224, 24, 64, 64),
        (14, 512, 128, 128, 256, 24, 64, 64), (14, 512, 112, 144, 288, 32, 64, 64),
        (14, 528, 256, 160, 320, 32, 128, 128),
        (7, 832, 256, 160, 320, 32, 128, 128), (7, 832, 384, 192, 384, 48, 128, 128),
    )  # fmt: skip
    layers = [
        square("conv1", 3, 64, 112, 7, 2),
        square("conv2r", 64, 64, 56, 1),
        square("conv2", 64, 192, 56, 3),
    ]
    for index, (side, c, one, three_r, three, five_r, five, pool) in enumerate(modules, start=1):
        layers += [
            square(f"inc{index}_1x1", c, one, side, 1),
            square(f"inc{index}_3x3r", c, three_r, side, 1),
            square(f"inc{index}_3x3", three_r, three, side, 3),
            square(f"inc{index}_5x5r", c, five_r, side, 1),
            square(f"inc{index}_5x5", five_r, five, side, 5),
            square(f"inc{index}_pool", c, pool, side, 1),
        ]
    layers.append(square("fc", 1024, 1000, 1, 1))
    return tuple(layers)
