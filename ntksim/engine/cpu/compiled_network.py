"""Networks and points as compiled code knows them: flat arrays and numbers."""

import numpy as np

from ntksim.engine.cpu.product import padded_points
from ntksim.engine.formulas.blocks import phi_of
from ntksim.engine.layout import Net, Pairs, padded
from ntksim.engine.network import Network


def compiled_network(network: Network, input_dim: int) -> Net:
    """What compiled code knows of a network with ``input_dim`` inputs."""
    scales = network.scales(input_dim)
    rows = np.stack([scales.weight, scales.weight_init, scales.bias, scales.bias_init, scales.rate])
    widths = np.array([input_dim, *network.widths, network.outputs], dtype=np.int64)
    lengths = np.array([padded(int(width)) for width in widths])
    phi = phi_of(network.activation)
    return Net(np.uint32(network.stream), phi.code, phi.parameter, phi.single, phi.double, widths, lengths, rows, 0, network.law)


def check_size(blocks: list[np.ndarray], kind: np.dtype) -> None:
    """Refuse points that overflow in ``kind``."""
    if any(np.abs(block).max() > np.finfo(kind).max for block in blocks):
        raise ValueError(
            f"points must be at most {np.finfo(kind).max:.3g} in size for {kind.name}: scale them down or use float64"
        )


def columns_of(x1: np.ndarray, x2: np.ndarray | None, kind: np.dtype, device: str) -> tuple[np.ndarray, Pairs]:
    """Points as columns (d, points), and which of them pair up in the kernel; for the CPU padded with zeros."""
    blocks = [x1] if x2 is None else [x2, x1]
    check_size(blocks, kind)
    sizes = [padded_points(len(block), kind.itemsize) if device == "cpu" else len(block) for block in blocks]
    columns = np.zeros((x1.shape[1], sum(sizes)), kind)
    columns[:, : len(blocks[0])] = blocks[0].T
    if x2 is None:
        return columns, Pairs(0, len(x1), len(x1), sizes[0], sizes[0], True)
    columns[:, sizes[0] : sizes[0] + len(x1)] = x1.T
    return columns, Pairs(sizes[0], len(x1), len(x2), sizes[0], sum(sizes), False)
