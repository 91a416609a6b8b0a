"""A driving network of the kind shown by Tesla (AI Day 2021) and by BEVFormer (Li et al., ECCV 2022).

Eight cameras pass a RegNetX-like backbone and a feature pyramid; a bird's-eye view of `bev` x `bev`
cells samples the fine features where each cell projects to, attends to all cameras' coarse ones, and to
its own last `frames` - 1 states, warped by the car's motion. Heads: objects (top-k, then non-maximum
suppression), lanes, occupancy (3-d), traffic lights, and a planned path. One step of a stream, batch 1.
No weights are published; `width` and `depth` scale RegNetX-1.6GF, with which the backbone agrees at 1.0.
"""

import torch
from _ops import nms
from regnet import SIZES, Trunk, conv_bn
from torch import nn
from torch.nn import functional

HEADS, CHANNELS, CELL_POINTS, CLASSES, OBJECTS = 8, 256, 4, 10, 300
"""Attention heads, pyramid channels, points that a cell samples in a camera, object classes, boxes kept."""


class Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        projected = (self.q(query), self.k(source), self.v(source))
        q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in projected)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention to a source, then a perceptron."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), source)
        return x + self.perceptron(self.norm2(x))


class Pyramid(nn.Module):
    """Strides 8, 16, 32, top down (Lin et al., CVPR 2017); gives the finest and the coarsest."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.side = nn.ModuleList(nn.Conv2d(width, CHANNELS, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        levels = [side(x) for side, x in zip(self.side, features, strict=True)]
        for i in (1, 0):
            levels[i] = levels[i] + functional.interpolate(levels[i + 1], size=levels[i].shape[2:], mode="nearest")
        return self.smooth[0](levels[0]), self.smooth[1](levels[-1])


class BirdsEye(nn.Module):
    """Queries of cells: sample the fine features, attend to the coarse ones, look back in time."""

    def __init__(self, bev: int, cameras: int, tokens: int, frames: int, layers: int):
        super().__init__()
        self.bev = bev
        self.query = nn.Parameter(torch.zeros(1, bev * bev, CHANNELS))
        self.camera = nn.Parameter(torch.zeros(cameras, tokens, CHANNELS))
        self.register_buffer("points", torch.zeros(cameras, bev * bev, CELL_POINTS, 2), persistent=False)
        self.register_buffer("history", torch.zeros(frames - 1, CHANNELS, bev, bev), persistent=False)
        self.mix = nn.Linear(CELL_POINTS * CHANNELS, CHANNELS)
        self.space = nn.ModuleList(Layer(CHANNELS) for _ in range(layers))
        self.time = Layer(CHANNELS)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        sampled = functional.grid_sample(fine, self.points, align_corners=False).mean(0)
        x = self.query + self.mix(sampled.permute(1, 2, 0).flatten(1))[None]
        source = (coarse.flatten(2).transpose(1, 2) + self.camera).flatten(0, 1)[None]
        for layer in self.space:
            x = layer(x, source)
        if len(self.history):
            grid = functional.affine_grid(motion, list(self.history.shape), align_corners=False)
            past = functional.grid_sample(self.history, grid, align_corners=False).flatten(2).permute(2, 0, 1)
            now = x.transpose(0, 1)
            x = self.time(now, torch.cat((past, now), dim=1)).transpose(0, 1)
        view = x.transpose(1, 2).unflatten(2, (self.bev, self.bev))
        if len(self.history):
            self.history.copy_(torch.cat((self.history[1:], view)))
        return view


class Objects(nn.Module):
    """A heat map and a box per cell; the best boxes survive non-maximum suppression."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv_bn(CHANNELS, CHANNELS, 3), nn.ReLU())
        self.heat, self.box = nn.Conv2d(CHANNELS, CLASSES, 1), nn.Conv2d(CHANNELS, 8, 1)

    def forward(self, view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(view)
        heat, boxes = self.heat(x)[0].sigmoid(), self.box(x)[0].flatten(1).t()
        score, place = heat.flatten().topk(min(OBJECTS, heat.numel()))
        chosen = boxes[place % boxes.shape[0]]
        kept = nms(chosen[:, :4], score, 0.5, min(100, len(score)))
        return score[kept], chosen[kept]


class Occupancy(nn.Module):
    """Height bins as a third axis, filtered in 3-d, at twice the resolution."""

    def __init__(self, bins: int = 8):
        super().__init__()
        self.lift, self.bins = nn.Conv2d(CHANNELS, 32 * bins, 1), bins
        self.filter, self.last = nn.Conv3d(32, 32, 3, padding=1), nn.ConvTranspose3d(32, 16, 2, 2)
        self.classes = nn.Conv3d(16, CLASSES, 1)

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.filter(self.lift(view).unflatten(1, (32, self.bins))))
        coarse = functional.interpolate(x[:, :16], scale_factor=2.0, mode="trilinear", align_corners=False)
        return self.classes(torch.relu(self.last(x) + coarse))


class Queries(nn.Module):
    """Learned queries read the view; used for lanes (polylines) and for the path."""

    def __init__(self, count: int, outputs: int, layers: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, count, CHANNELS))
        self.layers, self.head = nn.ModuleList(Layer(CHANNELS) for _ in range(layers)), nn.Linear(CHANNELS, outputs)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        x = self.query
        for layer in self.layers:
            x = layer(x, source)
        return self.head(x)


class Driving(nn.Module):
    def __init__(self, trunk: Trunk, pyramid: Pyramid, view: BirdsEye, blocks: int):
        super().__init__()
        self.trunk, self.pyramid, self.view = trunk, pyramid, view
        parts = [part for _ in range(blocks) for part in (conv_bn(CHANNELS, CHANNELS, 3), nn.ReLU())]
        self.encoder = nn.Sequential(*parts)
        self.objects, self.occupancy = Objects(), Occupancy()
        self.lanes, self.path = Queries(64, 20 * 2 + 4, 2), Queries(6, 16 * 3, 2)
        self.lights = nn.Linear(CHANNELS, 5)

    def forward(self, images: torch.Tensor, motion: torch.Tensor):
        fine, coarse = self.pyramid(self.trunk(images)[1:])
        view = self.encoder(self.view(fine, coarse, motion))
        cells = functional.max_pool2d(view, 2).flatten(2).transpose(1, 2)
        lights = self.lights(coarse[:2].mean((2, 3)))
        return self.objects(view), self.lanes(cells), self.occupancy(view), lights, self.path(cells)


def build(
    cameras: int = 8,
    height: int = 480,
    width_px: int = 640,
    width: float = 1.0,
    depth: float = 1.0,
    bev: int = 64,
    frames: int = 4,
    layers: int = 3,
):
    widths, depths, group = SIZES["1.6gf"]
    widths = tuple(max(1, round(w * width / group)) * group for w in widths)
    depths = tuple(max(1, round(d * depth)) for d in depths)
    tokens = -(-height // 32) * -(-width_px // 32)
    view = BirdsEye(bev, cameras, tokens, frames, layers)
    model = Driving(Trunk(widths, depths, group), Pyramid(widths[1:]), view, 4)
    return model, (torch.empty(cameras, 3, height, width_px), torch.empty(frames - 1, 2, 3))
