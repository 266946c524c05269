//! Writes small checkpoints, good and bad, into a test's own directory.
//!
//! Used by the unit tests of the checkpoint layer and by `tests/bad_inputs.rs`, which runs the program.

use std::fs;
use std::path::Path;

/// The weight file of an adapter.
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter/adapter_model.safetensors";
/// The configuration of an adapter.
pub(crate) const ADAPTER_CONFIG: &str = "adapter/adapter_config.json";
/// The weight file of a base model.
pub(crate) const BASE_WEIGHTS: &str = "base/model.safetensors";

/// Width of the little model.
pub(crate) const WIDTH: u64 = 6;
/// Rank of its adapter.
pub(crate) const RANK: u64 = 2;

/// A tensor to be written.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// An F32 tensor of ordinary values, different in every tensor.
pub(crate) fn f32_tensor(name: &str, shape: &[u64]) -> Tensor {
    let count: u64 = shape.iter().product();
    let mut state = name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let bytes = (0..count).flat_map(|_| next().to_le_bytes()).collect();
    Tensor { name: name.to_owned(), dtype: "F32", shape: shape.to_vec(), bytes }
}

/// A tensor of zero bytes with any type.
pub(crate) fn zero_tensor(name: &str, dtype: &'static str, shape: &[u64], bytes: usize) -> Tensor {
    Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes: vec![0; bytes] }
}

/// A `.safetensors` file with the tensors in the order given.
pub(crate) fn file(tensors: &[Tensor]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        let name = serde_json::Value::from(tensor.name.as_str());
        let shape = serde_json::Value::from(tensor.shape.clone());
        entries.push(format!(
            "{name}:{{\"dtype\":\"{}\",\"shape\":{shape},\"data_offsets\":[{begin},{}]}}",
            tensor.dtype,
            data.len()
        ));
    }
    raw(format!("{{{}}}", entries.join(",")).as_bytes(), &data)
}

/// A file with any header and its true length.
pub(crate) fn raw(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    bytes
}

/// The module path of one layer.
pub(crate) fn query(layer: &str) -> String {
    format!("encoder.layer.{layer}.attention.self.query")
}

/// A and B of one layer, named as PEFT does.
pub(crate) fn lora(layer: &str) -> [Tensor; 2] {
    let stem = format!("base_model.model.bert.{}", query(layer));
    [f32_tensor(&format!("{stem}.lora_A.weight"), &[RANK, WIDTH]), f32_tensor(&format!("{stem}.lora_B.weight"), &[WIDTH, RANK])]
}

/// The adapter's tensors: two layers.
pub(crate) fn adapter_tensors() -> Vec<Tensor> {
    ["0", "1"].into_iter().flat_map(lora).collect()
}

/// The base's tensors: two layers.
pub(crate) fn base_tensors() -> Vec<Tensor> {
    ["0", "1"].into_iter().map(|layer| f32_tensor(&format!("{}.weight", query(layer)), &[WIDTH, WIDTH])).collect()
}

/// Writes `adapter/` and `base/`, both good, below `root`.
pub(crate) fn good(root: &Path) {
    fs::create_dir_all(root.join("adapter")).unwrap();
    fs::create_dir_all(root.join("base")).unwrap();
    config(root, &[]);
    put(root, ADAPTER_WEIGHTS, &file(&adapter_tensors()));
    put(root, BASE_WEIGHTS, &file(&base_tensors()));
}

/// Writes the adapter's configuration with some fields replaced by other JSON text, or removed where that is empty.
pub(crate) fn config(root: &Path, changes: &[(&str, &str)]) {
    let mut fields: Vec<(&str, &str)> =
        vec![("peft_type", "\"LORA\""), ("r", "2"), ("lora_alpha", "4"), ("base_model_name_or_path", "\"base\"")];
    for (name, text) in changes {
        fields.retain(|(other, _)| other != name);
        if !text.is_empty() {
            fields.push((name, text));
        }
    }
    let lines: Vec<String> = fields.iter().map(|(name, text)| format!("  \"{name}\": {text}")).collect();
    put(root, ADAPTER_CONFIG, format!("{{\n{}\n}}", lines.join(",\n")).as_bytes());
}

/// Writes a file below `root`.
pub(crate) fn put(root: &Path, name: &str, bytes: &[u8]) {
    fs::write(root.join(name), bytes).unwrap();
}

/// Replaces the adapter's weights by some tensors.
pub(crate) fn adapter(root: &Path, tensors: &[Tensor]) {
    put(root, ADAPTER_WEIGHTS, &file(tensors));
}

/// Replaces the adapter's weights by a header and data.
pub(crate) fn adapter_header(root: &Path, header: &str, data_len: usize) {
    put(root, ADAPTER_WEIGHTS, &raw(header.as_bytes(), &vec![0; data_len]));
}

/// Replaces the base's weights by some tensors.
pub(crate) fn base(root: &Path, tensors: &[Tensor]) {
    put(root, BASE_WEIGHTS, &file(tensors));
}

/// The adapter's tensors with the one of that index changed.
pub(crate) fn changed(index: usize, change: impl FnOnce(&mut Tensor)) -> Vec<Tensor> {
    let mut tensors = adapter_tensors();
    change(&mut tensors[index]);
    tensors
}
