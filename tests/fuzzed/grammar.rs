//! Inputs that are valid, or nearly: generated at random from the parts of each format.

use std::fmt::Write;

use super::mutation::SplitMix;
use crate::generate::{Tensor, file, raw, zero_tensor};
use crate::pickled::{self, View};

pub(crate) const HEADER: &[&[u8]] = &[
    b"dtype",
    b"shape",
    b"data_offsets",
    b"__metadata__",
    b"F32",
    b"BF16",
    b"F16",
    b"F64",
    b"F8_E4M3",
    b"F4",
    b"I64",
    b"BOOL",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\"a\":",
    b"\"x\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},",
    b"[[[[",
    b"null",
    b"\\u0000",
    b"\\ud800",
    b"\x1b[31m",
    b"\n",
    b"\xff",
    b"\xef\xbb\xbf",
    b"9223372036854775808",
    b"-1",
    b"0.5",
    b"1e9",
];
pub(crate) const ZIP: &[&[u8]] = &[
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
    b"PK\x07\x08",
    b"archive/data.pkl",
    b"data.pkl",
    b"data/0",
    b"byteorder",
    b"little",
    b"big",
    b"version",
    b"\xff\xff\xff\xff",
    b"\xff\xff",
    b"\x01\0\x18\0",
    b"\0\0\0\0",
    b"ustar",
    b"\x80\x02",
];
pub(crate) const OPCODES: &[&[u8]] = &[
    b"(",
    b")",
    b"]",
    b"}",
    b"t",
    b"u",
    b"s",
    b"e",
    b"a",
    b"b",
    b"R",
    b"Q",
    b".",
    b"N",
    b"\x88",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x93",
    b"\x94",
    b"q\0",
    b"q\x01",
    b"r\xff\xff\0\0",
    b"h\0",
    b"h\x01",
    b"j\0\0\0\0",
    b"K\0",
    b"K\x04",
    b"M\x10\0",
    b"J\xff\xff\xff\xff",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"G\0\0\0\0\0\0\0\0",
    b"X\x01\0\0\0a",
    b"\x8c\x010",
    b"X\xff\xff\xff\xff",
    b"X\x07\0\0\0storage",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nBFloat16Storage\n",
    b"ctorch\nSize\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n",
    b"cos\nsystem\n",
    b"c\x1b[2J\nx\n",
    b"X\n\0\0\0state_dict",
    b"((((((((",
    b"i",
    b"o",
    b"\x81",
    b"\x95\0\0\0\0\0\0\0\0",
];
pub(crate) const FIELDS: &[&[u8]] = &[
    b"\"peft_type\":\"LORA\",",
    b"\"peft_type\":\"ADALORA\",",
    b"\"peft_type\":\"ConditionalLORA\",",
    b"\"r\":8,",
    b"\"init_r\":12,",
    b"\"lora_alpha\":16,",
    b"\"lora_alpha\":NaN,",
    b"\"rank_pattern\":{\"query\":4},",
    b"\"rank_pattern\":{\"a.lora_E\":[true,false]},",
    b"\"alpha_pattern\":{\".*\":2.5},",
    b"\"(\":1,",
    b"\"(a|b)*{9}\":1,",
    b"\"(?:\\\\w{90}){90}\":1,",
    b"\"\\\\p{L}\":1,",
    b"\"use_rslora\":true,",
    b"\"fan_in_fan_out\":true,",
    b"\"use_dora\":true,",
    b"\"init_lora_weights\":\"pissa_niter_4\",",
    b"\"init_lora_weights\":\"\\u001b[2J\",",
    b"\"use_x\":\"none\",",
    b"\"condlora_convention\":\"eq6\",",
    b"\"layers_to_transform\":[0,1],",
    b"\"revision\":\"main\",",
    b"null",
    b"true",
    b"[[",
    b"{",
    b"}",
    b"Infinity",
    b"-Infinity",
    b"NaN",
    b"\"\\ud800\"",
    b"\xff",
    b"\\n",
];
pub(crate) const SEGMENTS: &[&[u8]] = &[
    b"lora_A",
    b"lora_B",
    b"lora_E",
    b"lora_embedding_A",
    b"lora_magnitude_vector",
    b"weight",
    b"bias",
    b"default",
    b"base_model.model.",
    b"_orig_mod.",
    b"module.",
    b"layer",
    b"layers",
    b"h",
    b"block",
    b"blocks",
    b"0",
    b"1",
    b"007",
    b"-1",
    b"999999",
    b"1000000",
    b"*",
    b".",
    b"..",
    b"a",
    b"query",
    b"lora_unet_mid",
    b"lora_te_text_model_encoder_layers_0_q",
    b"alpha",
    b"lora_down.weight",
    b"lora_up.weight",
    b"lora_a",
    b"lora_b",
    b"linear_for_lora_A",
    b"qkv_proj",
    b"qweight",
    b"weight.absmax",
    b"SCB",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"|F32|2x6",
    b"|F16|6x2",
    b"|BF16|6x6",
    b"|F8_E4M3|6x6",
    b"|F32|",
    b"|F32|0x6",
    b"|F32|6x2x1x1",
    b"\na x.lora_A|F32|2x6\n",
    b"\nb x.weight|F32|6x6\n",
    b"\"use_dora\":true,",
    b"\"peft_type\":\"ADALORA\",",
    b"\"peft_type\":\"ConditionalLORA\",",
    b"\"fan_in_fan_out\":true,",
];
pub(crate) const CELLS: &[&[u8]] = &[
    b"A",
    b"B",
    b"BA",
    b"lora_A",
    b"lora_B",
    b"delta",
    b"left",
    b"right",
    b"ok",
    b"zero",
    b"rank",
    b"skipped",
    b"singular",
    b"low_confidence",
    b"paper",
    b"general",
    b"lu",
    b"least_squares",
    b"all",
    b"",
    b"0.5",
    b"1.0",
    b"0.0",
    b"-0.0",
    b"1e-300",
    b"1.0000000001",
    b"1e308",
    b"-1e308",
    b"5e-324",
    b"nan",
    b"inf",
    b",",
    b",,",
    b"\"",
    b"\"\"",
    b"\n",
    b"\r\n",
    b"\r",
    b"\"a\nb\"",
    b"\xff",
    b"\x1b[2J",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"<&>",
    b"\0",
    b"=1+1",
    b"\xf0\x9f\x98\x80",
    b"\n=== compare.csv\n",
    b"\n=== similarity.csv\n",
    b"\n=== manifest.json\n",
    b"18446744073709551615",
    b"4294967295",
];
const NAMES: [&str; 12] = [
    "query",
    "value",
    "attention.output.dense",
    "a/b",
    "a,b",
    "\"q\"",
    "модуль",
    "<&>'",
    "=1+1",
    "\u{202e}x\u{301}",
    "",
    "😀\u{200d}\u{7f}",
];

pub(crate) fn as_it_is(_: &mut [u8]) {}

/// Writes the length of a header before it anew: up to the last `}` that the old length leaves, or that there is.
pub(crate) fn mend_length(bytes: &mut [u8]) {
    let Some(header) = bytes.get(8..) else { return };
    let Some(end) = header.iter().take(LONGEST_HEADER).rposition(|byte| *byte == b'}') else { return };
    let length = (end as u64 + 1).to_le_bytes();
    bytes[..8].copy_from_slice(&length);
}

/// The data of what is written here has no `}`.
const LONGEST_HEADER: usize = 1 << 20;

fn some_tensors(rng: &mut SplitMix) -> Vec<Tensor> {
    (0..rng.below(5))
        .map(|at| {
            let (dtype, size) = [("F32", 4), ("F64", 8), ("F16", 2), ("BF16", 2), ("I64", 8)][rng.below(5)];
            let shape: Vec<u64> = (0..rng.below(4)).map(|_| rng.below(5) as u64).collect();
            let bytes = size * shape.iter().product::<u64>() as usize;
            let name = format!("{}.{at}.{}", rng.pick(&NAMES), rng.pick(&["lora_A.weight", "lora_B", "weight", ""]));
            zero_tensor(&name, dtype, &shape, bytes)
        })
        .collect()
}

pub(crate) fn safetensors(rng: &mut SplitMix) -> Vec<u8> {
    if rng.one_in(16) { raw(b"{\"__metadata__\":{\"format\":\"pt\"}}  ", b"") } else { file(&some_tensors(rng)) }
}

pub(crate) fn archive(rng: &mut SplitMix) -> Vec<u8> {
    let long = rng.one_in(2);
    pickled::zip(&pickled::parts(&some_tensors(rng)), long)
}

/// A dictionary of views of the two storages there are, most of them in their storage.
pub(crate) fn pickle(rng: &mut SplitMix) -> Vec<u8> {
    let views: Vec<View> = (0..rng.below(4))
        .map(|at| {
            let whole = zero_tensor(&format!("{}{at}", rng.pick(&NAMES)), "F32", &[[12, 4][at % 2]], [48, 16][at % 2]);
            let mut view = View::of(&whole, &(at % 2).to_string());
            if rng.one_in(2) {
                view.shape = (0..rng.below(4)).map(|_| rng.below(4) as u64).collect();
                view.strides = view.shape.iter().map(|_| rng.below(5) as u64).collect();
                view.offset = rng.below(5) as u64;
            }
            view
        })
        .collect();
    pickled::dictionary(&views)
}

/// Very many patterns, or patterns that make large automata.
fn many_patterns(rng: &mut SplitMix) -> Vec<u8> {
    let (field, value) = *[("rank_pattern", "4"), ("alpha_pattern", "2.5")].get(rng.below(2)).unwrap();
    let key = rng.pick(&["k", "layer.1.q", "a.*", "(?:\\\\w{60}){9}", "[^x]{200}", "\\\\p{L}+"]);
    let count = [100, 1000, 20_000, 60_000][rng.below(4)];
    let pairs: Vec<String> = (0..count).map(|at| format!("\"{key}{at}\":{value}")).collect();
    let mut text = format!("{{\"peft_type\":\"LORA\",\"{field}\":{{{}}}}}", pairs.join(","));
    if text.len() >= 1 << 20 {
        text.truncate(900_000);
    }
    text.into_bytes()
}

pub(crate) fn config(rng: &mut SplitMix) -> Vec<u8> {
    if rng.one_in(2000) {
        return many_patterns(rng);
    }
    let mut text = String::from("{\"peft_type\":\"LORA\"");
    for _ in 0..rng.below(6) {
        let field = FIELDS[3 + rng.below(20)];
        if let Some(field) = std::str::from_utf8(field).ok().filter(|field| field.contains("\":") && field.len() > 8) {
            let _ = write!(text, ",{}", field.trim_end_matches(','));
        }
    }
    text.push('}');
    text.into_bytes()
}

fn path(rng: &mut SplitMix) -> String {
    let parts: Vec<String> = (0..1 + rng.below(5))
        .map(|_| match rng.below(4) {
            0 => format!("{}.{}", rng.pick(&["layer", "layers", "h", "block", "x"]), rng.below(12)),
            1 => rng.below(3).to_string(),
            _ => (*rng.pick(&["query", "dense", "q", "output", "model", "a"])).to_owned(),
        })
        .collect();
    parts.join(".")
}

pub(crate) fn names(rng: &mut SplitMix) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..1 + rng.below(8) {
        let prefix = rng.pick(&["", "base_model.model.", "_orig_mod.base_model.model.", "module."]);
        let ending = rng.pick(&["lora_A.weight", "lora_B.default.weight", "lora_A", "lora_embedding_A", "lora_B.bias"]);
        let _ = writeln!(text, "{prefix}{}.{ending}", path(rng));
    }
    text.into_bytes()
}

/// An adapter as one of the programs writes it, on a base that has its weights or nearly.
pub(crate) fn pairing(rng: &mut SplitMix) -> Vec<u8> {
    let (d_in, d_out, r) = (2 + rng.below(5), 2 + rng.below(5), 1 + rng.below(3));
    let mut text = match rng.below(6) {
        0 => String::new(),
        1 => format!(
            "{{\"peft_type\":\"LORA\",\"r\":{r},\"target_parameters\":[\"experts.down_proj\"]}}\nc {{\"model_type\":\"gpt_oss\"}}\n"
        ),
        2 => format!(
            "{{\"peft_type\":\"LORA\"}}\nc {{\"model_type\":\"{}\",\"multi_query\":{},\"n_head\":{},\"hidden_size\":{d_in}}}\n",
            rng.pick(&["falcon", "bloom", "chatglm", "gpt_bigcode", "internlm2", "mpt"]),
            rng.one_in(2),
            1 + rng.below(3)
        ),
        _ => String::from("{\"peft_type\":\"LORA\"}\n"),
    };
    let dtype = rng.pick(&["F32", "F32", "BF16", "F16", "F64", "I64"]);
    let same = path(rng);
    for layer in 0..1 + rng.below(4) {
        let path = if rng.one_in(3) { path(rng) } else { format!("layer.{layer}.{same}") };
        let (under, square) = (path.replace('.', "_"), rng.one_in(2));
        let d_out = if square { d_in } else { d_out };
        let _ = match rng.below(8) {
            0 => writeln!(
                text,
                "a lora_unet_{under}.lora_down.weight|{dtype}|{r}x{d_in}\na lora_unet_{under}.lora_up.weight|{dtype}|{d_out}x{r}\na lora_unet_{under}.alpha|F32|"
            ),
            5 => writeln!(
                text,
                "a unet.{path}.lora.down.weight|{dtype}|{r}x{d_in}\na unet.{path}.lora.up.weight|{dtype}|{d_out}x{r}"
            ),
            6 => {
                let experts = 1 + rng.below(3);
                let stem = format!("layer.{layer}.experts");
                let rows = r * experts;
                writeln!(
                    text,
                    "a {stem}.lora_A.weight|{dtype}|{rows}x{d_in}\na {stem}.lora_B.weight|{dtype}|{d_out}x{rows}\nb {stem}.down_proj|{dtype}|{experts}x{d_out}x{d_in}"
                )
            }
            1 => writeln!(text, "a {path}.lora_a|{dtype}|{d_in}x{r}\na {path}.lora_b|{dtype}|{r}x{d_out}"),
            _ => writeln!(
                text,
                "a base_model.model.{path}.lora_A.weight|{dtype}|{r}x{d_in}\na base_model.model.{path}.lora_B.weight|{dtype}|{d_out}x{r}"
            ),
        };
        let _ = writeln!(
            text,
            "b {}{path}.weight|{}|{d_out}x{d_in}",
            rng.pick(&["", "", "model.", "bert."]),
            rng.pick(&["F32", "F32", "BF16", "I8"])
        );
    }
    text.into_bytes()
}

fn cell(rng: &mut SplitMix) -> &'static str {
    rng.pick(&["", "0.5", "0.0", "1.0", "1e-300", "-0.0", "0.25", "0.0208", "1.0000000001", "0.999", "5e-324"])
}

fn status(rng: &mut SplitMix) -> &'static str {
    rng.pick(&["ok", "ok", "zero", "skipped", "rank", "singular", "low_confidence", "unreliable"])
}

/// A field of CSV, quoted.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const SUMMARY: &str = "adapter,module,matrix,side,i,j,layers,phi_mean,phi_min,phi_max,gaussian_expected,gaussian_mean,gaussian_sd,w0_mean,w0_sd,\
    w0_z,w0_p,init_mean,status\n";
const SIMILARITY: &str =
    "adapter,module,matrix,side,i,j,layer_a,layer_b,phi,phi_error_bound,gaussian_mean,gaussian_sd,w0_mean,w0_sd,init,status\n";
const CONVERSION: &str = "adapter,module,layer,adapter_key,tensor,out_features,in_features,rank,scaling,convention,method,w0_dtype,adapter_dtype,\
    w0_rank,w0_condition,residual_a,residual_b,backward_error_a,backward_error_b,norm_a,norm_b,norm_delta,status\n";
const SPECTRUM: &str = "adapter,module,matrix,layer,k,sigma\n";
const ACROSS: &str = "module,layer,matrix,side,i,j,adapter_a,adapter_b,phi,gaussian_expected,status\n";
const COMPARE: &str = "left,right,module,layer,matrix,side,i,j,phi,gaussian_expected,w0_mean,w0_sd,w0_p,status\n";
const FIT: &str = "module,matrix,layer,residual,residual_expected,residual_sd,p,flip_mean,flip_sd,flip_p,status\n";
const HELD_OUT: &str =
    "module,matrix,map,weighting,layer,score,chance,without_w0,flip_mean,flip_sd,flip_p,shuffled_mean,shuffled_p,status\n";

const GRID: &str = "adapter,module,matrix,side,layer_a,layer_b,i,j,phi,gaussian_expected,status\n";
const TRAINING: &str = "adapter,step,epoch,name,value\n";

/// φ by every number of vectors, and the curves of a training.
fn grid_and_training(rng: &mut SplitMix) -> String {
    let mut text = format!("=== grid.csv\n{GRID}");
    let (rows, columns) = (1 + rng.below(6), 1 + rng.below(6));
    for i in 1..=rows {
        for j in 1..=columns {
            let _ = writeln!(text, "x,q,A,left,0,{},{i},{j},{},0.02,{}", rows % 2, cell(rng), status(rng));
        }
    }
    let _ = write!(text, "=== training.csv\n{TRAINING}");
    let step = [1, 500, usize::MAX / 8][rng.below(3)];
    for at in 0..rng.below(8) {
        let value = rng.pick(&["0.7", "1e308", "-1e308", "0.0", "", "5e-324", "2.5", "0.69"]);
        let (epoch, name) =
            (rng.pick(&["", "0.5", "1.0", "1e300"]), rng.pick(&["loss", "eval_loss", "eval_accuracy", "\u{202e}"]));
        let _ = writeln!(text, "x,{},{epoch},{name},{value}", at * step);
    }
    text
}

/// Whole grids of a study, with any values.
fn study(rng: &mut SplitMix) -> String {
    let (mut summary, mut similarity) = (SUMMARY.to_owned(), SIMILARITY.to_owned());
    let mut conversion = CONVERSION.to_owned();
    let count = 1 + rng.below(4);
    let step = [1, 1, 7, 1_000_000_000][rng.below(4)];
    let adapters = 1 + rng.below(2);
    for adapter in NAMES.iter().cycle().skip(rng.below(12)).take(adapters) {
        let adapter = quoted(adapter);
        for module in NAMES.iter().cycle().skip(rng.below(12)).take(1 + rng.below(2)) {
            let module = quoted(module);
            let rank = [1, 8, 64, usize::MAX][rng.below(4)];
            let _ = writeln!(conversion, "{adapter},{module},0,k,t,6,6,{rank},1.0,paper,lu,F32,F32,6,,,,,,1.0,1.0,1.0,ok");
            for matrix in ["A", "B", "BA", "lora_A"].into_iter().take(1 + rng.below(4)) {
                let key = format!("{adapter},{module},{matrix},{},{rank},{rank}", rng.pick(&["left", "left", "right"]));
                let mut valued = 0;
                for a in 0..count {
                    for b in 0..count {
                        let phi = cell(rng);
                        valued += usize::from(a == b && !phi.is_empty());
                        let (c, d, e) = (cell(rng), cell(rng), cell(rng));
                        let _ =
                            writeln!(similarity, "{key},{},{},{phi},,{c},{d},{e},{d},{c},{}", a * step, b * step, status(rng));
                    }
                }
                let (c, d, e) = (cell(rng), cell(rng), cell(rng));
                let _ = writeln!(summary, "{key},{valued},{c},{d},{e},{d},{c},{e},{d},{c},,{e},,{}", status(rng));
            }
        }
    }
    let mut text = format!("=== summary.csv\n{summary}=== similarity.csv\n{similarity}=== conversion.csv\n{conversion}");
    let _ = write!(text, "=== spectrum.csv\n{SPECTRUM}x,q,A,0,1,2.0\nx,q,A,0,2,{}\n", rng.pick(&["0.5", "0.0", "1e300"]));
    if rng.one_in(2) {
        text += &grid_and_training(rng);
    }
    if rng.one_in(2) {
        let _ = write!(text, "=== across.csv\n{ACROSS}");
        let adapters: Vec<String> = NAMES.iter().take(1 + rng.below(5)).map(|name| quoted(name)).collect();
        for layer in 0..1 + rng.below(2) {
            for a in &adapters {
                for b in &adapters {
                    let _ = writeln!(text, "q,{layer},A,left,8,8,{a},{b},{},0.02,{}", cell(rng), status(rng));
                }
            }
        }
    }
    text
}

fn compared(rng: &mut SplitMix) -> String {
    let mut text = format!("=== compare.csv\n{COMPARE}");
    let step = [1, 3, 1_000_000_000][rng.below(3)];
    let (left, right) = (quoted(rng.pick(&NAMES)), quoted(rng.pick(&NAMES)));
    for module in NAMES.iter().take(1 + rng.below(3)) {
        for layer in 0..1 + rng.below(4) {
            for (matrix, side) in [("A", "right"), ("B", "left"), ("delta", "left")] {
                let (module, c, d, e) = (quoted(module), cell(rng), cell(rng), cell(rng));
                let _ = writeln!(
                    text,
                    "{left},{right},{module},{},{matrix},{side},8,8,{c},{d},{e},{c},,{}",
                    layer * step,
                    status(rng)
                );
            }
        }
    }
    text
}

/// One grid of very many layers, or of adapters that were only compared with themselves.
fn large_grid(rng: &mut SplitMix) -> String {
    let count = [20, 60, 100][rng.below(3)];
    if rng.one_in(2) {
        let one = |adapter: usize| format!("q,0,A,left,8,8,a{adapter},a{adapter},1.0,,ok\n");
        let rows: String = (0..10 * count).map(one).collect();
        return format!(
            "=== summary.csv\n{SUMMARY}=== similarity.csv\n{SIMILARITY}=== conversion.csv\n{CONVERSION}=== spectrum.csv\n{SPECTRUM}=== across.csv\n{ACROSS}{rows}"
        );
    }
    let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
    let rows: String = pairs.map(|(a, b)| format!("x,q,A,left,8,8,{a},{b},0.5,,,,,,,ok\n")).collect();
    let summary = format!("{SUMMARY}x,q,A,left,8,8,{count},0.5,,,,,,,,,,,ok\n");
    format!(
        "=== summary.csv\n{summary}=== similarity.csv\n{SIMILARITY}{rows}=== conversion.csv\n{CONVERSION}=== spectrum.csv\n{SPECTRUM}"
    )
}

pub(crate) fn tables(rng: &mut SplitMix) -> Vec<u8> {
    if rng.one_in(400) {
        return large_grid(rng).into_bytes();
    }
    let mut text = match rng.below(4) {
        0 => compared(rng),
        1 => format!(
            "=== fit.csv\n{FIT}query,A,all,{},0.5,0.1,0.5,{},0.1,0.5,ok\nquery,B,3,0.5,{},0.1,0.5,,,,ok\n\
             === heldout.csv\n{HELD_OUT}query,A,W0,subspace,all,{},0.02,0.1,{},0.1,0.5,0.1,0.5,ok\n\
             query,A,W0^T,energy,3,{},0.02,0.1,,,,,,ok\n",
            cell(rng),
            cell(rng),
            cell(rng),
            cell(rng),
            cell(rng),
            cell(rng)
        ),
        _ => study(rng),
    };
    if rng.one_in(4) {
        text += "=== manifest.json\n{\"program\":\"condlora\",\"outputs\":{\"summary.csv\":\"00\"},\"adapters\":[]}\n";
    }
    text.into_bytes()
}

/// One table, preceded by its number.
pub(crate) fn rows(rng: &mut SplitMix) -> Vec<u8> {
    const KINDS: [(u8, &str); 10] = [
        (9, "grid.csv"),
        (10, "training.csv"),
        (0, "summary.csv"),
        (1, "similarity.csv"),
        (2, "conversion.csv"),
        (3, "spectrum.csv"),
        (4, "across.csv"),
        (6, "compare.csv"),
        (8, "fit.csv"),
        (11, "heldout.csv"),
    ];
    let (kind, name) = KINDS[rng.below(KINDS.len())];
    let mark = format!("=== {name}\n");
    let text = loop {
        let text = String::from_utf8(tables(rng)).unwrap();
        if let Some((_, rest)) = text.split_once(&mark) {
            break rest.split("=== ").next().unwrap_or_default().to_owned();
        }
    };
    // A few rows are as good as many.
    let lines: Vec<&str> = text.lines().take(2 + rng.below(4)).collect();
    [&[kind], lines.join("\n").as_bytes(), b"\n"].concat()
}
