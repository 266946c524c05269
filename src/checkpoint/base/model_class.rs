//! What a module is called in the class that a model is loaded as, which the names in its weight file need not say.
//!
//! A model with a head (`BertForSequenceClassification`) holds the bare one (`BertModel`) under a name of its own (`bert`), and a file
//! saved from the bare one lacks that name. PEFT looks for the names of the class it is given.

use super::BaseModel;
use super::model_config::ModelConfig;

/// `task_type` of PEFT for models with a head.
const WITH_HEAD: [&str; 5] = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "CAUSAL_LM", "SEQ_2_SEQ_LM"];
/// `task_type` of PEFT for bare models.
const BARE: &str = "FEATURE_EXTRACTION";

/// transformers' `base_model_prefix` by `model_type`: what the classes with a head add to the names of the bare model.
/// T5 is not here: its classes with and without a head have the same names.
const PREFIXES: [(&str, &str); 52] = [
    ("albert", "albert"),
    ("bart", "model"),
    ("beit", "beit"),
    ("bert", "bert"),
    ("big_bird", "bert"),
    ("bloom", "transformer"),
    ("camembert", "roberta"),
    ("codegen", "transformer"),
    ("cohere", "model"),
    ("convbert", "convbert"),
    ("deberta", "deberta"),
    ("deberta-v2", "deberta"),
    ("deit", "deit"),
    ("distilbert", "distilbert"),
    ("electra", "electra"),
    ("ernie", "ernie"),
    ("esm", "esm"),
    ("falcon", "transformer"),
    ("gemma", "model"),
    ("gemma2", "model"),
    ("gemma3_text", "model"),
    ("gpt2", "transformer"),
    ("gpt_bigcode", "transformer"),
    ("gpt_neo", "transformer"),
    ("gpt_neox", "gpt_neox"),
    ("gptj", "transformer"),
    ("ibert", "ibert"),
    ("layoutlm", "layoutlm"),
    ("llama", "model"),
    ("longformer", "longformer"),
    ("mbart", "model"),
    ("mistral", "model"),
    ("mixtral", "model"),
    ("mobilebert", "mobilebert"),
    ("modernbert", "model"),
    ("mpnet", "mpnet"),
    ("olmo", "model"),
    ("olmo2", "model"),
    ("opt", "model"),
    ("pegasus", "model"),
    ("phi", "model"),
    ("phi3", "model"),
    ("qwen2", "model"),
    ("qwen3", "model"),
    ("rembert", "rembert"),
    ("roberta", "roberta"),
    ("roformer", "roformer"),
    ("starcoder2", "model"),
    ("vit", "vit"),
    ("xlm-roberta", "roberta"),
    ("xlm-roberta-xl", "roberta"),
    ("xlnet", "transformer"),
];

/// How module paths of a base model's file become those of the class it is loaded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelClass {
    /// The bare model is held under this name.
    Under(&'static str),
    /// The bare model itself is loaded: this name is removed where the file has it.
    Bare(Option<&'static str>),
    /// The file's names are taken as they are, and may not be those of the class.
    AsStored,
}

impl ModelClass {
    /// The class that an adapter for `task_type` is trained in, from the `config.json` in the folder of the base model's weights.
    #[must_use]
    pub fn of(base: &BaseModel, task_type: Option<&str>) -> Self {
        let read = || {
            // Nothing is computed from it: a configuration that cannot be read is as good as none.
            let model_type = ModelConfig::beside(base.weights_file()).ok()??.model_type?;
            PREFIXES.iter().find(|(known, _)| *known == model_type).map(|(_, prefix)| *prefix)
        };
        match task_type {
            Some(task) if WITH_HEAD.contains(&task) => read().map_or(Self::AsStored, Self::Under),
            Some(BARE) => Self::Bare(read()),
            _ => Self::AsStored,
        }
    }

    /// A module's path in the class.
    #[must_use]
    pub fn path(self, stored: &str) -> String {
        let under = |prefix: &str| stored.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        match self {
            Self::Under(prefix) if under(prefix).is_none() => format!("{prefix}.{stored}"),
            Self::Bare(Some(prefix)) => under(prefix).unwrap_or(stored).to_owned(),
            _ => stored.to_owned(),
        }
    }

    /// Whether a stored path may be another one in the class that `task_type` means.
    #[must_use]
    pub fn is_uncertain(self, task_type: Option<&str>, stored: &str) -> bool {
        let first = stored.split_once('.').map_or(stored, |(first, _)| first);
        self == Self::AsStored && task_type.is_some_and(|task| WITH_HEAD.contains(&task)) && !is_prefix(first)
    }
}

/// Whether some class with a head puts the bare model under this name.
pub(crate) fn is_prefix(name: &str) -> bool {
    PREFIXES.iter().any(|(_, prefix)| *prefix == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate;

    fn class(model_type: &str, task: Option<&str>) -> ModelClass {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        std::fs::write(dir.path().join("base/config.json"), format!("{{\"model_type\": \"{model_type}\"}}")).unwrap();
        ModelClass::of(&BaseModel::open(&dir.path().join("base")).unwrap(), task)
    }

    #[test]
    fn heads_put_the_bare_model_under_its_name() {
        let bert = class("bert", Some("SEQ_CLS"));
        assert_eq!(bert.path("encoder.layer.0.q"), "bert.encoder.layer.0.q");
        assert_eq!(bert.path("bert.encoder.layer.0.q"), "bert.encoder.layer.0.q");
        assert_eq!(bert.path("bertx.q"), "bert.bertx.q");
        assert_eq!(class("gpt2", Some("CAUSAL_LM")).path("h.0.attn.c_attn"), "transformer.h.0.attn.c_attn");
        assert_eq!(class("bert", Some("FEATURE_EXTRACTION")).path("bert.encoder.q"), "encoder.q");
        assert_eq!(class("bert", None).path("encoder.q"), "encoder.q");
        assert_eq!(class("t5", Some("SEQ_2_SEQ_LM")).path("encoder.block.0.q"), "encoder.block.0.q");
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert!(class("new", Some("SEQ_CLS")).is_uncertain(Some("SEQ_CLS"), "encoder.layer.0.q"));
        assert!(!class("new", Some("SEQ_CLS")).is_uncertain(Some("SEQ_CLS"), "roberta.encoder.layer.0.q"));
        assert!(!class("bert", Some("SEQ_CLS")).is_uncertain(Some("SEQ_CLS"), "encoder.layer.0.q"));
        assert!(!class("new", None).is_uncertain(None, "encoder.layer.0.q"));
    }

    #[test]
    fn prefixes_are_sorted_and_unique() {
        assert!(PREFIXES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
