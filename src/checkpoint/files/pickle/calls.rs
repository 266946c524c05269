//! The handful of globals that a dictionary of tensors names, and what "calling" them means. Nothing is imported or executed: any other name is
//! refused.
//!
//! Source: what `torch.save` writes (`torch/_utils.py`, `torch/serialization.py`).

use safetensors::Dtype;

use super::objects::{Global, Object, Objects, StorageObject, TensorObject, Value, size};
use super::refusal::Refused;
use crate::error::escape;

/// The global of that name.
pub(super) fn global(module: &str, name: &str) -> Result<Global, Refused> {
    let storage = |dtype, size| Ok(Global::StorageType(dtype, size));
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Ok(Global::RebuildParameter),
        ("torch", "Size") => Ok(Global::Size),
        ("torch", "DoubleStorage") => storage(Dtype::F64, 8),
        ("torch", "FloatStorage") => storage(Dtype::F32, 4),
        ("torch", "HalfStorage") => storage(Dtype::F16, 2),
        ("torch", "BFloat16Storage") => storage(Dtype::BF16, 2),
        ("torch", "LongStorage") => storage(Dtype::I64, 8),
        ("torch", "IntStorage") => storage(Dtype::I32, 4),
        ("torch", "ShortStorage") => storage(Dtype::I16, 2),
        ("torch", "CharStorage") => storage(Dtype::I8, 1),
        ("torch", "ByteStorage") => storage(Dtype::U8, 1),
        ("torch", "BoolStorage") => storage(Dtype::BOOL, 1),
        _ => Err(Refused::NotPlain(format!("`{}.{}`", escape(module), escape(name)))),
    }
}

/// The storage that a persistent id means: `('storage', TYPE, KEY, LOCATION, ELEMENTS)`.
pub(super) fn persistent(objects: &Objects, id: Value) -> Result<Object, Refused> {
    let Some(Object::Tuple(items)) = objects.get(id) else { return Err(Refused::Broken("a persistent id that is no tuple")) };
    let &[kind, of, key, _, elements] = &items[..] else { return Err(Refused::Broken("a persistent id of another length")) };
    let (_, kind) = objects.text(kind)?;
    if kind != "storage" {
        return Err(Refused::NotPlain(format!("a persistent `{}`", escape(kind))));
    }
    let Some(Object::Global(Global::StorageType(dtype, bytes))) = objects.get(of) else {
        return Err(Refused::Broken("a storage without a type"));
    };
    let (key, elements) = (objects.key(key)?, size(elements)?);
    Ok(Object::Storage(StorageObject { dtype: *dtype, size: *bytes, key, elements }))
}

/// What a call gives: a new object, or one of its arguments.
pub(super) enum CallResult {
    New(Object),
    Same(Value),
}

/// A call of one of the globals above, none of which computes anything.
pub(super) fn call(objects: &Objects, callee: Value, arguments: Value) -> Result<CallResult, Refused> {
    let Some(Object::Tuple(arguments)) = objects.get(arguments) else {
        return Err(Refused::Broken("arguments that are no tuple"));
    };
    let Some(Object::Global(callee)) = objects.get(callee) else {
        return Err(Refused::Broken("a call of something that is no function"));
    };
    match (callee, &arguments[..]) {
        (Global::OrderedDict, []) => Ok(CallResult::New(Object::Dict(Vec::new()))),
        (Global::Size, [sizes]) => Ok(CallResult::Same(*sizes)),
        (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => Ok(CallResult::New(Object::Tensor(TensorObject {
            storage: objects.storage(*storage)?,
            shape: objects.sizes(*shape)?,
            strides: objects.sizes(*strides)?,
            offset: size(*offset)?,
        }))),
        (Global::RebuildParameter, [tensor, ..]) if matches!(objects.get(*tensor), Some(Object::Tensor(_))) => {
            Ok(CallResult::Same(*tensor))
        }
        _ => Err(Refused::Broken("a call with other arguments than torch.save writes")),
    }
}
