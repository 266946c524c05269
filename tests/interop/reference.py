"""phi as an independent NumPy and SciPy program computes it, from the weights of a living PEFT model.

Nothing here is shared with condlora: the weights come from the model's own modules, not from files.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from peft.tuners.lora import LoraLayer
from scipy.linalg import subspace_angles


@dataclass
class LoraModule:
    path: str
    layer: int
    w0: np.ndarray  # (out, in)
    lora_a: np.ndarray  # (r, in)
    lora_b: np.ndarray  # (out, r)
    scaling: float
    delta_norm: float


def lora_modules(model, adapter="default"):
    """What PEFT has of one adapter: {module name: [LoraModule in the order of the layers]}."""
    found = defaultdict(list)
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer) or adapter not in module.lora_A:
            continue
        w0 = array(module.get_base_layer().weight)
        found[path.rsplit(".", 1)[1]].append(
            LoraModule(
                path=path,
                layer=int(re.search(r"\.(\d+)\.", path).group(1)),
                w0=w0.T if getattr(module, "fan_in_fan_out", False) else w0,
                lora_a=array(module.lora_A[adapter].weight),
                lora_b=array(module.lora_B[adapter].weight),
                scaling=module.scaling[adapter],
                delta_norm=float(np.linalg.norm(array(module.get_delta_weight(adapter)))),
            )
        )
    return dict(found)


def array(tensor):
    return tensor.detach().double().numpy()


def is_square(modules):
    return all(m.w0.shape[0] == m.w0.shape[1] for m in modules)


def conversion_matrices(module, square):
    """Theta_A, Theta_B and Theta_BA: W0 Theta = T if all layers are square, else W0' Theta_A = A'."""
    if square:
        theta_a = np.linalg.solve(module.w0, module.lora_a.T)
        theta_b = np.linalg.solve(module.w0, module.lora_b)
    else:
        theta_a = np.linalg.lstsq(module.w0.T, module.lora_a.T, rcond=None)[0]
        theta_b = np.linalg.lstsq(module.w0, module.lora_b, rcond=None)[0]
    return {"A": theta_a, "B": theta_b, "BA": theta_b @ module.lora_a}


def phi_table(modules, pairs, sides=("left", "right")):
    """{(matrix, side, i, j, layer_a, layer_b): phi} for all ordered pairs of layers; None where vectors differ in length."""
    square = is_square(modules)
    vectors = {}
    for module in modules:
        for matrix, theta in conversion_matrices(module, square).items():
            u, _, vt = np.linalg.svd(theta, full_matrices=False)
            vectors[matrix, "left", module.layer], vectors[matrix, "right", module.layer] = u, vt.T
    table = {}
    for (matrix, side, a), x in vectors.items():
        for (other_matrix, other_side, b), y in vectors.items():
            if (matrix, side) == (other_matrix, other_side) and side in sides:
                for i, j in pairs:
                    table[matrix, side, i, j, a, b] = phi(x[:, :i], y[:, :j])
    return table


def phi(x, y):
    if len(x) != len(y):
        return None
    return float(np.sum(np.cos(subspace_angles(x, y)) ** 2)) / min(x.shape[1], y.shape[1])
