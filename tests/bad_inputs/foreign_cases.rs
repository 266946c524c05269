//! The cases for other formats: the good adapter as mlx-lm and kohya's scripts would store it, and the changes to that.

use std::fs;
use std::path::Path;

use super::cases::{Case, case};
use super::generate::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Tensor, f32_tensor, file, put, query, raw, zero_tensor};

/// Puts a file in the place of the adapter's, and takes its configuration away.
fn instead(root: &Path, name: &str, bytes: &[u8]) {
    fs::remove_file(root.join(ADAPTER_WEIGHTS)).unwrap();
    fs::remove_file(root.join(ADAPTER_CONFIG)).unwrap();
    put(root, &format!("adapter/{name}"), bytes);
}

fn flat(layer: &str, end: &str) -> String {
    format!("lora_te_{}.{end}", query(layer).replace('.', "_"))
}

/// Both layers as kohya's scripts store them.
fn kohya_tensors() -> Vec<Tensor> {
    let layer = |layer| {
        let alpha = Tensor { bytes: 4_f32.to_le_bytes().to_vec(), ..f32_tensor(&flat(layer, "alpha"), &[]) };
        [f32_tensor(&flat(layer, "lora_down.weight"), &[2, 6]), f32_tensor(&flat(layer, "lora_up.weight"), &[6, 2]), alpha]
    };
    ["0", "1"].into_iter().flat_map(layer).collect()
}

fn kohya(root: &Path, change: impl FnOnce(&mut Vec<Tensor>)) {
    let mut tensors = kohya_tensors();
    change(&mut tensors);
    instead(root, "style.safetensors", &file(&tensors));
}

fn renamed(root: &Path, from: &str, to: &str) {
    kohya(root, |tensors| tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name.replace(from, to)));
}

fn mlx(root: &Path, config: Option<&str>, tensors: &[Tensor]) {
    instead(root, "adapters.safetensors", &file(tensors));
    if let Some(text) = config {
        put(root, ADAPTER_CONFIG, text.as_bytes());
    }
}

fn mlx_tensors() -> Vec<Tensor> {
    [f32_tensor(&format!("{}.lora_a", query("0")), &[6, 2]), f32_tensor(&format!("{}.lora_b", query("0")), &[2, 6])].into()
}

/// Both layers under other names, beside PEFT's configuration.
fn named(root: &Path, names: [&dyn Fn(&str) -> String; 2], shapes: [[u64; 2]; 2]) {
    let of = |layer: &str| [0, 1].map(|which| f32_tensor(&names[which](&query(layer)), &shapes[which]));
    put(root, ADAPTER_WEIGHTS, &file(&["0", "1"].into_iter().flat_map(of).collect::<Vec<_>>()));
}

pub(crate) static FOREIGN: [Case; 21] = [
    case(
        "torchtune's own file",
        5,
        &["found torchtune's own names", "lora_a.weight", "hint: let torchtune's Hugging Face checkpointer"],
        |root| {
            named(root, [&|path| format!("{path}.lora_a.weight"), &|path| format!("{path}.lora_b.weight")], [[2, 6], [6, 2]]);
        },
    ),
    case("mlx-vlm", 5, &["found names of mlx-vlm", "query.A", "hint: rename .A to .lora_a"], |root| {
        named(root, [&|path| format!("{path}.A"), &|path| format!("{path}.B")], [[6, 2], [2, 6]]);
    }),
    case(
        "AdapterHub",
        3,
        &["found adapter_config.json, pytorch_adapter.bin", "hint: this is an adapter of AdapterHub's library"],
        |root| {
            fs::remove_file(root.join(ADAPTER_WEIGHTS)).unwrap();
            put(root, "adapter/pytorch_adapter.bin", b"");
        },
    ),
    case(
        "two adapters in one dump",
        5,
        &["two names for lora_A of one layer", "hint: the file holds two adapters, `first` and `second`"],
        |root| {
            let of = |name: &str| {
                let stem = format!("base_model.model.{}", query("0"));
                [
                    f32_tensor(&format!("{stem}.lora_A.{name}.weight"), &[2, 6]),
                    f32_tensor(&format!("{stem}.lora_B.{name}.weight"), &[6, 2]),
                ]
            };
            put(root, ADAPTER_WEIGHTS, &file(&[of("first"), of("second")].concat()));
        },
    ),
    case(
        "Git-LFS pointer for the config",
        4,
        &["adapter_config.json: cannot be read; expected one JSON object, found a Git-LFS pointer", "run git lfs pull"],
        |root| {
            put(root, ADAPTER_CONFIG, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 700\n");
        },
    ),
    case(
        "kohya's name without its base",
        5,
        &["style.safetensors: no module is one of", "lora_te_x_layer_0", "MODEL/unet or"],
        |root| {
            renamed(root, "encoder_layer", "x_layer");
        },
    ),
    case("kohya: A without B", 5, &["layer_0_attention_self_query.lora_down.weight` has no matching lora_up.weight"], |root| {
        kohya(root, |tensors| drop(tensors.remove(1)))
    }),
    case("kohya: B without A", 5, &["layer_1_attention_self_query.lora_up.weight` has no matching lora_down.weight"], |root| {
        kohya(root, |tensors| drop(tensors.remove(3)))
    }),
    case("kohya: α is 0", 5, &["query.alpha`; expected a number other than 0"], |root| {
        kohya(root, |tensors| tensors[2].bytes = vec![0; 4])
    }),
    case("kohya: α is NaN", 6, &["query.alpha`", "NaN"], |root| {
        kohya(root, |tensors| tensors[2].bytes = f32::NAN.to_le_bytes().to_vec())
    }),
    case("kohya: α of each row", 5, &["query.alpha`; expected one number, found [2]"], |root| {
        kohya(root, |tensors| tensors[2] = f32_tensor(&tensors[2].name.clone(), &[2]));
    }),
    case("kohya: α is an integer, and 0", 5, &["query.alpha`; expected a number other than 0"], |root| {
        kohya(root, |tensors| tensors[2] = zero_tensor(&tensors[2].name.clone(), "I64", &[], 8));
    }),
    case("LoHa", 5, &["hada_w1_a", "found LoHa (Hadamard products)"], |root| renamed(root, "lora_down.weight", "hada_w1_a")),
    case("LoKr", 5, &["lokr_w1", "found LoKr (Kronecker products)"], |root| renamed(root, "lora_down.weight", "lokr_w1")),
    case("Tucker", 5, &["lora_mid.weight", "Tucker"], |root| {
        kohya(root, |tensors| tensors.push(f32_tensor(&flat("0", "lora_mid.weight"), &[2, 2, 3, 3])));
    }),
    case("kohya: 3x3 convolution", 5, &["lora_down.weight` does not fit W0", "found [2, 6, 3, 3]"], |root| {
        kohya(root, |tensors| tensors[0] = f32_tensor(&tensors[0].name.clone(), &[2, 6, 3, 3]));
    }),
    case("a damaged file of kohya's", 3, &["no adapter in it", "style.safetensors"], |root| {
        instead(root, "style.safetensors", &raw(b"{", b""));
    }),
    case("mlx-lm: a without b", 5, &["adapters.safetensors", "lora_a` has no matching lora_b", "found no such tensor"], |root| {
        mlx(root, None, &mlx_tensors()[..1])
    }),
    case("mlx-lm: bad configuration", 4, &["adapter_config.json", "not valid JSON", "column"], |root| {
        mlx(root, Some("{\"lora_parameters\": }"), &mlx_tensors())
    }),
    case("mlx-lm: scale 0", 5, &["adapter_config.json: scale of lora_parameters", "found 0"], |root| {
        mlx(root, Some("{\"lora_parameters\": {\"scale\": 0}}"), &mlx_tensors());
    }),
    case("mlx-lm: factors the other way round", 5, &["ranks of"], |root| {
        let mut tensors = mlx_tensors();
        tensors[0] = f32_tensor(&tensors[0].name.clone(), &[2, 6]);
        mlx(root, None, &tensors);
    }),
];
