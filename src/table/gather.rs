//! Rows grouped by what they have in common.

use std::collections::HashMap;
use std::hash::Hash;

/// Gathers `rows` by `key`: the keys in the order in which each first appears, the rows of a key in their own order. No key is without a row.
pub(crate) fn gather<R, K: Hash + Eq + Copy>(rows: impl IntoIterator<Item = R>, key: impl Fn(&R) -> K) -> Vec<(K, Vec<R>)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut groups: Vec<(K, Vec<R>)> = Vec::new();
    for row in rows {
        let key = key(&row);
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[place].1.push(row);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_rows_keep_their_order() {
        let gathered = gather([(2, 'a'), (1, 'b'), (2, 'c'), (3, 'd'), (1, 'e')], |row| row.0);
        assert_eq!(gathered, [(2, vec![(2, 'a'), (2, 'c')]), (1, vec![(1, 'b'), (1, 'e')]), (3, vec![(3, 'd')])]);
        assert!(gather(Vec::<u8>::new(), |row| *row).is_empty());
    }
}
