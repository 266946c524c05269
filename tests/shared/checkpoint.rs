//! Checkpoints: real ones, read without the library's reader, and small ones, written in all stored types and layouts.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use ndarray::{Array2, s};
use safetensors::{Dtype, SafeTensors};

use super::generate::{Tensor, file};
use super::tolerance::gaussian;

/// The matrix of that name in a safetensors file.
pub(crate) fn read_matrix(path: &Path, name: &str) -> Array2<f64> {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let data = tensor.data();
    let values = match tensor.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        other => panic!("{name} is {other:?}"),
    };
    let &[rows, columns] = tensor.shape() else { panic!("{name} has shape {:?}", tensor.shape()) };
    Array2::from_shape_vec((rows, columns), values).unwrap()
}

/// Stores a matrix as `F64`, `F32`, `F16` or `BF16`.
pub(crate) fn stored(name: &str, matrix: &Array2<f64>, dtype: &'static str) -> Tensor {
    let bytes = match dtype {
        "F64" => matrix.iter().flat_map(|v| v.to_le_bytes()).collect(),
        "F32" => matrix.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        "F16" => matrix.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect(),
        "BF16" => matrix.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect(),
        other => panic!("no way to write {other}"),
    };
    Tensor { name: name.to_owned(), dtype, shape: vec![matrix.nrows() as u64, matrix.ncols() as u64], bytes }
}

/// Rounds to what every stored type holds exactly: values k/16 with |k| ≤ 64.
pub(crate) fn coarse(matrix: &Array2<f64>) -> Array2<f64> {
    matrix.mapv(|v| (v * 16.0).round().clamp(-64.0, 64.0) / 16.0)
}

/// One adapted layer: where it is, W0 [out, in], A [r, in] and B [out, r].
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) path: String,
    pub(crate) w0: Array2<f64>,
    pub(crate) a: Array2<f64>,
    pub(crate) b: Array2<f64>,
}

impl Layer {
    /// Gaussian weights, different in every layer; those of a smaller rank are the first rows and columns of a larger one's.
    pub(crate) fn new(path: &str, d_out: usize, d_in: usize, rank: usize) -> Self {
        Self {
            path: path.to_owned(),
            w0: gaussian(1, &format!("{path} w0"), d_out, d_in),
            a: gaussian(2, &format!("{path} a"), rank, d_in),
            b: gaussian(3, &format!("{path} b"), d_out, rank),
        }
    }

    /// The same with weights that F16 and BF16 hold exactly.
    pub(crate) fn coarse(self) -> Self {
        Self { w0: coarse(&self.w0), a: coarse(&self.a), b: coarse(&self.b), ..self }
    }
}

/// The layer of an adapter of rank r that has the first rows of A and columns of B.
pub(crate) fn first_columns(layer: &Layer, r: usize) -> Layer {
    Layer { a: layer.a.slice(s![..r, ..]).to_owned(), b: layer.b.slice(s![.., ..r]).to_owned(), ..layer.clone() }
}

/// Layers 0 to `count` of one square module.
pub(crate) fn square_layers(count: usize, n: usize, rank: usize) -> Vec<Layer> {
    (0..count).map(|l| Layer::new(&format!("model.layers.{l}.self_attn.q_proj"), n, n, rank)).collect()
}

/// How a checkpoint is stored.
#[derive(Clone, Copy)]
pub(crate) struct Storage {
    pub(crate) base: &'static str,
    pub(crate) adapter: &'static str,
    pub(crate) fan_in_fan_out: bool,
}

/// Everything in F64, W0 as PyTorch's Linear has it.
pub(crate) const PLAIN: Storage = Storage { base: "F64", adapter: "F64", fan_in_fan_out: false };

/// Writes a base model.
pub(crate) fn write_base(dir: &Path, layers: &[Layer], storage: Storage) {
    fs::create_dir_all(dir).unwrap();
    let tensors: Vec<Tensor> = layers
        .iter()
        .map(|layer| {
            let w0 = if storage.fan_in_fan_out { layer.w0.t().to_owned() } else { layer.w0.clone() };
            stored(&format!("{}.weight", layer.path), &w0, storage.base)
        })
        .collect();
    fs::write(dir.join("model.safetensors"), file(&tensors)).unwrap();
}

/// Writes an adapter; `more` are further fields of its configuration.
pub(crate) fn write_adapter(dir: &Path, layers: &[Layer], storage: Storage, more: &[(&str, serde_json::Value)]) {
    fs::create_dir_all(dir).unwrap();
    let tensors: Vec<Tensor> = layers
        .iter()
        .flat_map(|layer| {
            let stem = format!("base_model.model.{}", layer.path);
            [
                stored(&format!("{stem}.lora_A.weight"), &layer.a, storage.adapter),
                stored(&format!("{stem}.lora_B.weight"), &layer.b, storage.adapter),
            ]
        })
        .collect();
    fs::write(dir.join("adapter_model.safetensors"), file(&tensors)).unwrap();
    let rank = layers.iter().map(|layer| layer.a.nrows()).max().unwrap_or(1);
    let mut config = serde_json::json!({
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "base_model_name_or_path": "base",
        "fan_in_fan_out": storage.fan_in_fan_out,
    });
    for (name, value) in more {
        config[*name] = value.clone();
    }
    fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
}

/// Writes a CondLoRA as its authors' code does: for each module its name, Θ_A and Θ_B; `more` are further fields of its configuration.
pub(crate) fn write_condlora(
    dir: &Path,
    modules: &[(&str, &Array2<f64>, &Array2<f64>)],
    dtype: &'static str,
    more: &[(&str, serde_json::Value)],
) {
    fs::create_dir_all(dir).unwrap();
    let theta = |module: &str, factor: char, theta: &Array2<f64>| {
        stored(&format!("{module}.linear_for_lora_{factor}"), &theta.t().to_owned(), dtype)
    };
    let mut tensors: Vec<Tensor> = modules.iter().flat_map(|(name, a, b)| [theta(name, 'A', a), theta(name, 'B', b)]).collect();
    tensors.push(stored("base_model.model.classifier.weight", &gaussian(9, "classifier", 3, 5), "F32"));
    fs::write(dir.join("adapter_model.safetensors"), file(&tensors)).unwrap();
    let rank = modules.first().map_or(1, |(_, a, _)| a.ncols());
    let mut config = serde_json::json!({
        "peft_type": "ConditionalLORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "base_model_name_or_path": "base",
        "use_x": "none",
        "lora_x_scaling": 0.0,
        "task_type": "SEQ_CLS",
    });
    for (name, value) in more {
        config[*name] = value.clone();
    }
    fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
}

/// Writes `base/` and `adapter/` below `root`.
pub(crate) fn write_both(root: &Path, layers: &[Layer], storage: Storage) {
    write_base(&root.join("base"), layers, storage);
    write_adapter(&root.join("adapter"), layers, storage, &[]);
}
