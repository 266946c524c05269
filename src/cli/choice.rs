//! Option values that have names, as clap reads them, lists them in the help and completes them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::terms::{Named, StrictControl, or_auto::AUTO};

/// One of these values by its name.
pub(super) fn one_of<T: Named>(values: &'static [T]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(choices(values)).try_map(|name| read(values, &name))
}

/// Any value by its name.
pub(super) fn any<T: Named>() -> impl TypedValueParser<Value = T> {
    one_of(T::VALUES)
}

/// `auto`, or a value by its name.
pub(super) fn auto_or<T: Named>() -> impl TypedValueParser<Value = Option<T>> {
    let all = [PossibleValue::new(AUTO)].into_iter().chain(choices(T::VALUES));
    PossibleValuesParser::new(all).try_map(|name| if name == AUTO { Ok(None) } else { read(T::VALUES, &name).map(Some) })
}

/// A value by its name, or `none`.
pub(super) fn any_or_none<T: Named>() -> impl TypedValueParser<Value = Option<T>> {
    const NONE: &str = "none";
    let all = choices(T::VALUES).chain([PossibleValue::new(NONE)]);
    PossibleValuesParser::new(all).try_map(|name| if name == NONE { Ok(None) } else { read(T::VALUES, &name).map(Some) })
}

/// Whether W0 is decomposed, by `--strict-control` and `--no-svd`.
pub(super) fn strict_control(always: bool, never: bool) -> StrictControl {
    match (always, never) {
        (true, _) => StrictControl::Always,
        (_, true) => StrictControl::Never,
        _ => StrictControl::Auto,
    }
}

/// The names. Those that another build would know are let through to [`read`], which says why they are refused.
fn choices<T: Named>(values: &'static [T]) -> impl Iterator<Item = PossibleValue> {
    let not_built = T::NOT_BUILT.iter().map(|name| PossibleValue::new(*name).hide(true));
    values.iter().map(|value| PossibleValue::new(value.text())).chain(not_built)
}

/// The value of a name that clap has let through, in capitals or not as the option allows.
fn read<T: Named>(values: &[T], name: &str) -> Result<T, String> {
    values.iter().copied().find(|value| value.text().eq_ignore_ascii_case(name)).map_or_else(|| name.parse(), Ok)
}
