//! Storage of vector registers' columns, which a thread keeps for what it makes next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// How many blocks of storage a thread keeps, and how large one may be.
const SPARE: usize = 6;
const LARGEST_SPARE: usize = (16 << 20) / size_of::<f64>();

/// Numbers in a cache line.
const LINE: usize = 64 / size_of::<f64>();

thread_local! {
    /// Storage of what is gone: one solve after the other needs the same again, and fresh memory costs more than what is done in it.
    static KEPT: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
}

/// Numbers that begin at a cache line, so that no vector load crosses one.
#[derive(Debug)]
pub(super) struct Aligned {
    storage: Vec<f64>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// This many zeros.
    pub(super) fn zeros(length: usize) -> Self {
        // The smallest that is large enough.
        let kept = KEPT.with_borrow_mut(|all| {
            let fits = |storage: &Vec<f64>| storage.capacity() >= length + LINE;
            let best = (0..all.len()).filter(|&at| fits(&all[at])).min_by_key(|&at| all[at].capacity());
            best.map(|at| all.swap_remove(at))
        });
        let storage = match kept {
            Some(mut storage) => {
                storage.clear();
                storage.resize(length + LINE, 0.0);
                storage
            }
            None => vec![0.0; length + LINE],
        };
        let start = storage.as_ptr().align_offset(64).min(LINE);
        Self { storage, start, length }
    }
}

impl Deref for Aligned {
    type Target = [f64];
    fn deref(&self) -> &[f64] {
        &self.storage[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f64] {
        &mut self.storage[self.start..self.start + self.length]
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Self {
        let mut own = Self::zeros(self.length);
        own.copy_from_slice(self);
        own
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        let storage = std::mem::take(&mut self.storage);
        // At the end of a thread there is nowhere to keep it.
        let _ = KEPT.try_with(|all| {
            let mut all = all.borrow_mut();
            if storage.capacity() > LARGEST_SPARE {
                return;
            }
            all.push(storage);
            if all.len() > SPARE {
                all.sort_unstable_by_key(Vec::capacity);
                all.swap_remove(0);
            }
        });
    }
}
