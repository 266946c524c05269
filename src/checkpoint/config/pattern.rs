//! Keys of `rank_pattern` and `alpha_pattern`: PEFT takes them as regular expressions, in practice they are names.
//!
//! Names are compared as they are: a compiled expression takes kilobytes, so a file of a hundred kilobytes of them would take hundreds of
//! megabytes. Of real expressions there are few and small ones.

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may have.
const LARGEST: usize = 256 << 10;
/// Expressions of one configuration that are more than names.
pub(super) const MOST: usize = 100;

/// A key of `rank_pattern` or `alpha_pattern`: it matches the end of a module path, as PEFT matches it.
#[derive(Debug, Clone)]
pub struct ModulePattern {
    /// The key as written.
    pub key: String,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// The key itself, in which `.` matches any character and `\.` a dot; from the path's start if it begins with `^`.
    Name,
    /// A path in which `.` is a dot.
    Path(String),
    Expression(Regex),
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadPattern {
    Syntax,
    TooLarge,
}

impl ModulePattern {
    /// The pattern that a key is.
    pub(super) fn new(key: String) -> Result<Self, BadPattern> {
        if is_name(&key) {
            return Ok(Self { key, form: Form::Name });
        }
        let built = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{key})$")).size_limit(LARGEST).build();
        match built {
            Ok(regex) => Ok(Self { key, form: Form::Expression(regex) }),
            Err(regex::Error::CompiledTooBig(_)) => Err(BadPattern::TooLarge),
            Err(_) => Err(BadPattern::Syntax),
        }
    }

    /// The pattern of a key that matches one path and nothing else.
    pub(super) fn of_path(key: String, path: &str) -> Self {
        Self { key, form: Form::Path(path.to_owned()) }
    }

    /// Whether it is more than a name.
    pub(super) fn is_expression(&self) -> bool {
        matches!(self.form, Form::Expression(_))
    }

    /// Whether the pattern matches a module path: Python's `re.match(r"(.*\.)?(KEY)$", path)`.
    #[must_use]
    pub fn matches(&self, module_path: &str) -> bool {
        match &self.form {
            Form::Name => {
                let (whole, name) = self.key.strip_prefix('^').map_or((false, self.key.as_str()), |name| (true, name));
                match before(module_path, name) {
                    Some("") => true,
                    Some(before) => !whole && is_upper_part(before),
                    None => false,
                }
            }
            Form::Path(path) => {
                module_path.strip_suffix(path.as_str()).is_some_and(|before| before.is_empty() || is_upper_part(before))
            }
            Form::Expression(regex) => regex.is_match(module_path),
        }
    }
}

/// Whether a key has only literal characters, `.` and `\.`.
fn is_name(key: &str) -> bool {
    let key = key.strip_prefix('^').unwrap_or(key);
    !key.replace(r"\.", "").contains(['\\', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'])
}

/// What `(.*\.)` matches: anything that ends with a dot, in one line.
fn is_upper_part(before: &str) -> bool {
    before.ends_with('.') && !before.contains('\n')
}

/// The part of a path before the end that a name matches.
fn before<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let (mut path, mut name) = (path.chars(), name.chars());
    while let Some(wanted) = name.next_back() {
        let found = path.next_back()?;
        let escaped = wanted == '.' && name.as_str().ends_with('\\');
        if escaped {
            name.next_back();
        }
        let fits = if wanted == '.' && !escaped { found != '\n' } else { wanted == found };
        if !fits {
            return None;
        }
    }
    Some(path.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_a_path_is_matched_as_peft_matches_it() {
        for (key, path, expected) in [
            ("query", "a.layer.0.query", true),
            ("query", "query", true),
            ("query", "a.subquery", false),
            ("layer.0.q", "a.layer.0.q", true),
            ("layer.0.q", "a.player.0.q", false),
            ("layer.0.q", "a.layerx0xq", true),
            (r"layer\.0\.q", "a.layerx0xq", false),
            (r"layer\.0\.q", "layer.0.q", true),
            ("^layer.0.q", "layer.0.q", true),
            ("^layer.0.q", "a.layer.0.q", false),
            (r".*\.[0-3]\.q", "a.layer.2.q", true),
            ("q|v", "a.v", true),
        ] {
            assert_eq!(ModulePattern::new(key.to_owned()).unwrap().matches(path), expected, "{key} {path}");
        }
        let path = ModulePattern::of_path("a.q.lora_E".to_owned(), "a.q");
        assert!(path.matches("x.a.q") && path.matches("a.q") && !path.matches("axq") && !path.matches("xa.q"));
    }

    #[test]
    fn expressions_are_small_or_refused() {
        assert_eq!(ModulePattern::new(r"(?:\w{90}){90}".to_owned()).unwrap_err(), BadPattern::TooLarge);
        assert_eq!(ModulePattern::new("(".to_owned()).unwrap_err(), BadPattern::Syntax);
        assert!(ModulePattern::new(r"\p{L}+".to_owned()).unwrap().is_expression());
        assert!(!ModulePattern::new(r"^layers\.0.q-k/é".to_owned()).unwrap().is_expression());
    }

    proptest! {
        #[test]
        fn names_match_what_their_expressions_match(key in r"\^?([ab.\n]|\\\.){0,5}", path in r"[ab.\n\\]{0,7}") {
            let expression = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")).unwrap();
            let pattern = ModulePattern::new(key).unwrap();
            prop_assert!(!pattern.is_expression());
            prop_assert_eq!(pattern.matches(&path), expression.is_match(&path));
        }
    }
}
