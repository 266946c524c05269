"""phi as an independent NumPy and SciPy program computes it, from the weights of a living PEFT model.

Nothing here is shared with condlora: the weights come from the model's own modules, not from files.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from peft.tuners.tuners_utils import BaseTunerLayer
from scipy.linalg import subspace_angles


@dataclass
class LoraModule:
    path: str
    layer: int | None
    w0: np.ndarray  # (out, in)
    lora_a: np.ndarray  # (r, in); of AdaLoRA the product E * A
    lora_b: np.ndarray  # (out, r)
    scaling: float

    @property
    def delta_norm(self):
        return float(np.linalg.norm(self.scaling * self.lora_b @ self.lora_a))

    def rows(self, first, end):
        """A block of a fused projection: these rows of W0 and of B; A belongs to all blocks."""
        return replace(self, w0=self.w0[first:end], lora_b=self.lora_b[first:end])


def last_part(path):
    return path.rsplit(".", 1)[1]


def lora_modules(model, adapter="default", name=last_part):
    """What PEFT has of one adapter: {module name: [LoraModule in the order of the layers]}; `name` gives a path's module name."""
    found = defaultdict(list)
    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and adapter in module.scaling:
            found[name(path)].append(lora_module(path, module, adapter))
    return dict(found)


def lora_module(path, module, adapter):
    index = re.search(r"\.(\d+)\.", path)
    w0, scaling = matrix(array(module.get_base_layer().weight)), module.scaling[adapter]
    if adapter in module.lora_embedding_A:
        # Stored (vocabulary, dimension): the update is the transpose of B A.
        w0, lora_a, lora_b = w0.T, array(module.lora_embedding_A[adapter]), array(module.lora_embedding_B[adapter])
    elif hasattr(module, "lora_E"):
        lora_a, lora_b = array(module.lora_E[adapter]) * array(module.lora_A[adapter]), array(module.lora_B[adapter])
        # AdaLoRA divides by its rank, the one it began with, when it multiplies; the shift is PEFT's.
        scaling /= float(module.ranknum[adapter]) + 1e-5
    else:
        lora_a, lora_b = matrix(array(module.lora_A[adapter].weight)), matrix(array(module.lora_B[adapter].weight))
    w0 = w0.T if getattr(module, "fan_in_fan_out", False) else w0
    ours = LoraModule(path, int(index[1]) if index else None, w0, lora_a, lora_b, scaling)
    check_update(ours, module, adapter)
    return ours


def check_update(ours, module, adapter):
    """s B A must be the update that PEFT itself would merge, in its own precision and in the layout of its own weight."""
    merged = matrix(array(module.get_delta_weight(adapter)))
    transposed = getattr(module, "fan_in_fan_out", False) or adapter in module.lora_embedding_A
    error = np.linalg.norm((merged.T if transposed else merged) - ours.scaling * ours.lora_b @ ours.lora_a)
    assert error <= 0.01 * ours.delta_norm, f"{ours.path}: {error / ours.delta_norm}"


def matrix(kernel):
    """A 1x1 kernel as the matrix that it is."""
    return kernel[:, :, 0, 0] if kernel.ndim == 4 else kernel


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
