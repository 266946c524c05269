//! Where the inputs and outputs of an update lie in the spectrum of its base weight: the rows of `alignment.csv`.

use ndarray::{Array2, s};

use super::layer::ModuleName;
use super::update::Update;
use super::yardstick::{Yardstick, energies, gain};
use crate::controls::{mean_and_sd, p_value};
use crate::linalg::weight_basis::WeightBasis;
use crate::table::AlignmentRow;
use crate::terms::{Side, Status};

/// The rows of one adapter's module, for each number of leading directions and both sides; none for layers whose base weight was not decomposed.
#[must_use]
pub fn alignment_rows(
    name: ModuleName<'_>,
    counts: &[usize],
    updates: &[Update<'_, '_>],
    yardsticks: &[&Yardstick],
) -> Vec<AlignmentRow> {
    let mut rows = Vec::with_capacity(updates.len() * counts.len() * 2);
    for (update, yardstick) in updates.iter().zip(yardsticks) {
        let Some(basis) = update.layer.base.basis else { continue };
        for (at, &k) in counts.iter().enumerate() {
            for side in [Side::Right, Side::Left] {
                let random = &yardstick.random[at];
                let null = if side == Side::Right { &random.gain_right } else { &random.gain_left };
                rows.push(row(name, basis, update, (k, side), null));
            }
        }
    }
    rows
}

fn row(
    name: ModuleName<'_>,
    basis: &WeightBasis,
    update: &Update<'_, '_>,
    (k, side): (usize, Side),
    null: &[f64],
) -> AlignmentRow {
    let status = update.status_of(k);
    let of_w0: &Array2<f64> = if side == Side::Right { &basis.right } else { &basis.left };
    let own = update.along.as_ref().map(|along| if side == Side::Right { &along.right } else { &along.left });
    let own = own.filter(|_| status == Status::Ok).map(|all| all.slice(s![.., ..k]));
    let gain = own.and_then(|own| gain(&basis.sigma, own, of_w0.nrows()));
    let eighths = own.map(|own| eighths(&energies(own).to_vec()));
    let eighth = |number: usize| eighths.map(|eighths| eighths[number - 1]);
    AlignmentRow {
        adapter: name.adapter.to_owned(),
        module: name.module.to_owned(),
        layer: update.layer.number.clone(),
        side,
        k,
        gain,
        gain_sd: mean_and_sd(null).1,
        p: gain.and_then(|gain| p_value(gain, null)),
        eighth_1: eighth(1),
        eighth_2: eighth(2),
        eighth_3: eighth(3),
        eighth_4: eighth(4),
        eighth_5: eighth(5),
        eighth_6: eighth(6),
        eighth_7: eighth(7),
        eighth_8: eighth(8),
        status,
    }
}

/// Sums over eight parts, of which the first ones are longer by one where the number is no multiple of eight.
fn eighths(values: &[f64]) -> [f64; 8] {
    let (short, longer) = (values.len() / 8, values.len() % 8);
    let mut rest = values;
    std::array::from_fn(|part| {
        let (own, after) = rest.split_at(short + usize::from(part < longer));
        rest = after;
        own.iter().sum()
    })
}

#[cfg(test)]
mod tests {
    use super::super::example::{Example, basis_of, gaussian};
    use super::*;

    const NAME: ModuleName<'static> = ModuleName { adapter: "a", module: "q" };

    fn rows_of(example: &Example, counts: &[usize], draws: usize) -> Vec<AlignmentRow> {
        example.with(|update| {
            let yardstick = example.yardstick("w0", counts, 0, draws).unwrap();
            alignment_rows(NAME, counts, &[update], &[&yardstick])
        })
    }

    #[test]
    fn parts_are_those_of_array_split() {
        let ones = |count| eighths(&vec![1.0; count]);
        assert_eq!(ones(16), [2.0; 8]);
        assert_eq!(ones(19), [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(ones(3), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn an_update_in_chosen_directions_lies_where_it_was_put() {
        for (d_out, d_in) in [(16, 16), (30, 16), (16, 30)] {
            let w0 = gaussian("w0", d_out, d_in);
            let basis = basis_of(&w0);
            // Outputs in the largest direction and inputs in the two smallest, the smallest first.
            let b = basis.left.slice(s![.., ..2]).to_owned();
            let mut a = Array2::zeros((d_in, 2));
            a.column_mut(0).assign(&(&basis.right.column(15) * 5.0));
            a.column_mut(1).assign(&basis.right.column(14));
            let rows = rows_of(&Example::new(w0, b, a, 1.0, true), &[2, 1], 20);
            let keys: Vec<_> = rows.iter().map(|row| (row.k, row.side)).collect();
            assert_eq!(keys, [(2, Side::Right), (2, Side::Left), (1, Side::Right), (1, Side::Left)]);
            let squares: Vec<f64> = basis.sigma.iter().map(|sigma| sigma * sigma).collect();
            let total: f64 = squares.iter().sum();
            let expected = [
                (squares[15] + squares[14]) / 2.0 * d_in as f64,
                (squares[0] + squares[1]) / 2.0 * d_out as f64,
                squares[15] * d_in as f64,
                squares[0] * d_out as f64,
            ];
            for (row, expected) in rows.iter().zip(expected) {
                assert!((row.gain.unwrap() * total / expected - 1.0).abs() < 1e-9, "{row:?}");
                let (first, last) = if row.side == Side::Left { (1.0, 0.0) } else { (0.0, 1.0) };
                assert!((row.eighth_1.unwrap() - first).abs() < 1e-12 && (row.eighth_8.unwrap() - last).abs() < 1e-12);
                assert!(row.gain_sd.unwrap() > 0.0);
                assert_eq!(row.p.unwrap(), if row.side == Side::Left { 1.0 / 21.0 } else { 1.0 });
            }
        }
    }

    #[test]
    fn random_directions_gain_nothing_on_average() {
        let counts = [4, 1];
        let example = Example::new(gaussian("w0", 40, 24), gaussian("b", 40, 4), gaussian("a", 24, 4), 1.0, true);
        let yardstick = example.yardstick("t", &counts, 0, 2000).unwrap();
        for random in &yardstick.random {
            for null in [&random.gain_left, &random.gain_right] {
                let (mean, sd) = mean_and_sd(null);
                assert!((mean.unwrap() - 1.0).abs() < 5.0 * sd.unwrap() / 2000.0_f64.sqrt(), "{mean:?} {sd:?}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let (w0, a) = (gaussian("w0", 9, 9), gaussian("a", 9, 2));
        let zero = rows_of(&Example::new(w0.clone(), Array2::zeros((9, 2)), a.clone(), 1.0, true), &[2, 1], 3);
        assert!(
            zero.len() == 4 && zero.iter().all(|row| row.status == Status::Zero && row.gain.is_none() && row.eighth_1.is_none())
        );
        let mut b = gaussian("b", 9, 2);
        let copy = b.column(0).to_owned();
        b.column_mut(1).assign(&copy);
        let one = rows_of(&Example::new(w0.clone(), b.clone(), a.clone(), 1.0, true), &[2, 1], 3);
        let found: Vec<_> = one.iter().map(|row| (row.status, row.gain.is_some(), row.p.is_some())).collect();
        assert_eq!(found, [[(Status::Rank, false, false); 2], [(Status::Ok, true, true); 2]].concat());
        assert!(rows_of(&Example::new(w0, b, a, 1.0, false), &[2, 1], 3).is_empty());
    }
}
