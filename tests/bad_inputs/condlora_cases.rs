//! The cases for CondLoRA: a good one for the good base, and the changes to it.

use std::path::Path;

use super::cases::{Case, case};
use super::generate::{RANK, Tensor, WIDTH, adapter, base, base_tensors, config, f32_tensor, query, zero_tensor};

/// Θ_A and Θ_B of the good base's module.
fn thetas() -> Vec<Tensor> {
    ["A", "B"].map(|factor| f32_tensor(&format!("query.linear_for_lora_{factor}"), &[RANK, WIDTH])).to_vec()
}

/// Writes some tensors as a CondLoRA, with further fields of its configuration.
fn condlora(root: &Path, tensors: &[Tensor], fields: &[(&str, &str)]) {
    let mut all = vec![("peft_type", "\"ConditionalLORA\""), ("use_x", "\"none\"")];
    all.retain(|(name, _)| !fields.iter().any(|(other, _)| name == other));
    all.extend_from_slice(fields);
    config(root, &all);
    adapter(root, tensors);
}

pub(crate) static CONDLORA: [Case; 13] = [
    case("CondLoRA of x", 5, &["use_x; expected \"none\", found \"mean\"", "depend on the input"], |root| {
        condlora(root, &thetas(), &[("use_x", "\"mean\"")]);
    }),
    case("CondLoRA of an unknown convention", 5, &["condlora_convention", "found \"transposed\""], |root| {
        condlora(root, &thetas(), &[("condlora_convention", "\"transposed\"")]);
    }),
    case(
        "Θ_A without Θ_B",
        5,
        &["`query.linear_for_lora_A` has no matching linear_for_lora_B", "found no such tensor"],
        |root| {
            condlora(root, &thetas()[..1], &[]);
        },
    ),
    case("LoRA that says it is CondLoRA", 5, &["no CondLoRA tensor in the file", "lora_A.weight"], |root| {
        config(root, &[("peft_type", "\"ConditionalLORA\"")]);
    }),
    case("CondLoRA that says it is LoRA", 5, &["no LoRA tensor in the file", "query.linear_for_lora_A"], |root| {
        adapter(root, &thetas());
    }),
    case("Θ stored the other way round", 5, &["[6, 2] and [6, 2]", "r at most in", "stored transposed"], |root| {
        let turned = ["A", "B"].map(|factor| f32_tensor(&format!("query.linear_for_lora_{factor}"), &[WIDTH, RANK]));
        condlora(root, &turned, &[]);
    }),
    case("Θ of three dimensions", 5, &["shape of tensor `query.linear_for_lora_A`", "[2, 6, 1]"], |root| {
        let mut tensors = thetas();
        tensors[0].shape.push(1);
        condlora(root, &tensors, &[]);
    }),
    case("Θ of another width", 5, &["do not fit W0 `encoder.layer.0.", "W0 of shape [5, 5], found [6, 6]"], |root| {
        let narrow = ["A", "B"].map(|factor| f32_tensor(&format!("query.linear_for_lora_{factor}"), &[RANK, 5]));
        condlora(root, &narrow, &[]);
    }),
    case("Θ of integers", 5, &["tensor `query.linear_for_lora_B`", "full precision", "I64"], |root| {
        let [a, _]: [Tensor; 2] = thetas().try_into().unwrap_or_else(|_| unreachable!());
        condlora(root, &[a, zero_tensor("query.linear_for_lora_B", "I64", &[RANK, WIDTH], 96)], &[]);
    }),
    case(
        "module that the base has not",
        5,
        &["module `value` of the CondLoRA has no weight", "`*.value.weight`", "query"],
        |root| {
            let mut tensors = thetas();
            tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name.replace("query", "value"));
            condlora(root, &tensors, &[]);
        },
    ),
    case("CondLoRA of a packed base", 5, &["needs full precision", "GPTQ", "unquantised"], |root| {
        condlora(root, &thetas(), &[]);
        base(root, &[zero_tensor(&format!("{}.qweight", query("0")), "I32", &[1, WIDTH], 24)]);
    }),
    case("Θ with a NaN", 6, &["`query.linear_for_lora_B`", "NaN"], |root| {
        let mut tensors = thetas();
        tensors[1].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        condlora(root, &tensors, &[]);
    }),
    case("W0 of a CondLoRA with an Inf", 6, &["encoder.layer.1.attention.self.query.weight", "inf"], |root| {
        condlora(root, &thetas(), &[]);
        let mut tensors = base_tensors();
        tensors[1].bytes[8..12].copy_from_slice(&f32::INFINITY.to_le_bytes());
        base(root, &tensors);
    }),
];
