//! φ in double-double: textbook elimination, Gram-Schmidt done twice, and Jacobi rotations, none of them shared with the program.

use condlora::terms::{Convention, MatrixKind, Side};
use ndarray::{Array2, ArrayView2};

use super::double::Double;

/// A matrix by columns.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) rows: usize,
    pub(crate) columns: Vec<Vec<Double>>,
}

fn dot(x: &[Double], y: &[Double]) -> Double {
    x.iter().zip(y).fold(Double::ZERO, |sum, (x, y)| sum + *x * *y)
}

fn norm(x: &[Double]) -> Double {
    dot(x, x).sqrt()
}

/// `y ← y + factor·x`.
fn add_multiple(y: &mut [Double], factor: Double, x: &[Double]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = *y + factor * *x;
    }
}

impl Columns {
    pub(crate) fn of(matrix: ArrayView2<'_, f64>) -> Self {
        let columns = matrix.columns().into_iter().map(|c| c.iter().map(|&v| Double::from(v)).collect()).collect();
        Self { rows: matrix.nrows(), columns }
    }

    fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns: vec![vec![Double::ZERO; rows]; columns] }
    }

    pub(crate) fn transposed(&self) -> Self {
        let columns = (0..self.rows).map(|row| self.columns.iter().map(|c| c[row]).collect()).collect();
        Self { rows: self.columns.len(), columns }
    }

    /// `self·other`.
    pub(crate) fn times(&self, other: &Self) -> Self {
        let product = |column: &Vec<Double>| {
            let mut sum = vec![Double::ZERO; self.rows];
            for (own, &factor) in self.columns.iter().zip(column) {
                add_multiple(&mut sum, factor, own);
            }
            sum
        };
        Self { rows: self.rows, columns: other.columns.iter().map(product).collect() }
    }

    /// The solution of `self·X = targets` for a square matrix: Gaussian elimination, the largest entry of the column as pivot.
    pub(crate) fn solve(&self, targets: &Self) -> Self {
        let n = self.rows;
        // Rows of the matrix with those of the targets behind them.
        let mut rows: Vec<Vec<Double>> =
            self.transposed().columns.into_iter().zip(targets.transposed().columns).map(|(w, t)| [w, t].concat()).collect();
        for k in 0..n {
            let pivot = (k..n).max_by(|&a, &b| rows[a][k].abs().partial_cmp(&rows[b][k].abs()).unwrap()).unwrap();
            rows.swap(k, pivot);
            let (above, below) = rows.split_at_mut(k + 1);
            for row in below {
                let factor = row[k] / above[k][k];
                add_multiple(&mut row[k + 1..], -factor, &above[k][k + 1..]);
            }
        }
        for k in (0..n).rev() {
            let (above, below) = rows.split_at_mut(k + 1);
            let row = &mut above[k];
            for (column, other) in (k + 1..).zip(below.iter()) {
                let factor = row[column];
                for (value, &known) in row[n..].iter_mut().zip(&other[n..]) {
                    *value = *value - factor * known;
                }
            }
            let pivot = row[k];
            row[n..].iter_mut().for_each(|value| *value = *value / pivot);
        }
        Self { rows: targets.columns.len(), columns: rows.into_iter().map(|row| row[n..].to_vec()).collect() }.transposed()
    }

    /// Q with orthonormal columns and the upper triangle R, for a tall matrix.
    pub(crate) fn qr(&self) -> (Self, Self) {
        let k = self.columns.len();
        let (mut q, mut r) = (Self { rows: self.rows, columns: Vec::with_capacity(k) }, Self::zeros(k, k));
        for (j, column) in self.columns.iter().enumerate() {
            let mut rest = column.clone();
            for _ in 0..2 {
                for (i, earlier) in q.columns.iter().enumerate() {
                    let share = dot(earlier, &rest);
                    add_multiple(&mut rest, -share, earlier);
                    r.columns[j][i] = r.columns[j][i] + share;
                }
            }
            let length = norm(&rest);
            r.columns[j][j] = length;
            if length.to_f64() > 0.0 {
                rest.iter_mut().for_each(|v| *v = *v / length);
            }
            q.columns.push(rest);
        }
        (q, r)
    }

    /// The least-squares solution of least norm of `self·X = targets`, for full rank.
    pub(crate) fn least_squares(&self, targets: &Self) -> Self {
        if self.rows >= self.columns.len() {
            let (q, r) = self.qr();
            r.solve(&q.transposed().times(targets))
        } else {
            let (q, r) = self.transposed().qr();
            q.times(&r.transposed().solve(targets))
        }
    }

    /// U, σ (largest first) and V by one-sided Jacobi rotations.
    pub(crate) fn svd(&self) -> (Self, Vec<Double>, Self) {
        let k = self.columns.len();
        let mut turned = self.columns.clone();
        let mut v: Vec<Vec<Double>> =
            (0..k).map(|a| (0..k).map(|b| if a == b { Double::ONE } else { Double::ZERO }).collect()).collect();
        let size: f64 = turned.iter().map(|c| dot(c, c).to_f64()).sum();
        for sweep in 0.. {
            assert!(sweep < 60, "Jacobi rotations do not converge");
            let mut turns = 0;
            for a in 0..k {
                for b in a + 1..k {
                    let (alpha, beta) = (dot(&turned[a], &turned[a]), dot(&turned[b], &turned[b]));
                    let gamma = dot(&turned[a], &turned[b]);
                    let (x, y, z) = (alpha.to_f64(), beta.to_f64(), gamma.to_f64());
                    // Columns that are rounding noise compared with the others need no order among themselves.
                    if z.abs() <= 1e-30 * (x * y).sqrt() || x.min(y) <= 1e-60 * size {
                        continue;
                    }
                    turns += 1;
                    let zeta = (beta - alpha) / (gamma + gamma);
                    let root = (Double::ONE + zeta * zeta).sqrt();
                    let tangent = Double::ONE / (zeta.abs() + root);
                    let tangent = if zeta.to_f64() < 0.0 { -tangent } else { tangent };
                    let cosine = Double::ONE / (Double::ONE + tangent * tangent).sqrt();
                    let sine = cosine * tangent;
                    for matrix in [&mut turned, &mut v] {
                        let (left, right) = matrix.split_at_mut(b);
                        for (p, q) in left[a].iter_mut().zip(&mut right[0]) {
                            (*p, *q) = (cosine * *p - sine * *q, sine * *p + cosine * *q);
                        }
                    }
                }
            }
            if turns == 0 {
                break;
            }
        }
        let sigma: Vec<Double> = turned.iter().map(|c| norm(c)).collect();
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| sigma[b].partial_cmp(&sigma[a]).unwrap());
        let unit = |at: usize| {
            let length = if sigma[at].to_f64() > 0.0 { sigma[at] } else { Double::ONE };
            turned[at].iter().map(|&x| x / length).collect()
        };
        let u = Self { rows: self.rows, columns: order.iter().map(|&at| unit(at)).collect() };
        let right = Self { rows: k, columns: order.iter().map(|&at| v[at].clone()).collect() };
        (u, order.iter().map(|&at| sigma[at]).collect(), right)
    }

    /// `W⁺·targets` for the `rank` largest singular values of W.
    pub(crate) fn truncated(&self, targets: &Self, rank: usize) -> Self {
        let wide = self.columns.len() > self.rows;
        let (u, sigma, v) = if wide { self.transposed().svd() } else { self.svd() };
        let (mut from, mut to) = if wide { (v, u) } else { (u, v) };
        from.columns.truncate(rank);
        to.columns.truncate(rank);
        let mut inner = from.transposed().times(targets);
        for column in &mut inner.columns {
            column.iter_mut().zip(&sigma).for_each(|(x, s)| *x = *x / *s);
        }
        to.times(&inner)
    }
}

/// Singular vectors of one matrix, and its singular values.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    pub(crate) left: Columns,
    pub(crate) right: Columns,
    /// Singular values that count as more than zero: at least, and at most, since the program may decide otherwise on one within a factor of two of
    /// the threshold.
    pub(crate) rank: (usize, usize),
}

impl Basis {
    /// The reference for `x·yᵀ`, or for `x` alone.
    fn of(x: &Columns, y: Option<&Columns>) -> Self {
        let (q, r) = x.qr();
        let (core, right) = match y {
            Some(y) => {
                let (q, s) = y.qr();
                (r.times(&s.transposed()), Some(q))
            }
            None => (r, None),
        };
        let (u, sigma, v) = core.svd();
        let sigma: Vec<f64> = sigma.into_iter().map(Double::to_f64).collect();
        let longest = if right.is_some() { core.rows } else { x.rows };
        let cutoff = longest as f64 * f64::EPSILON * sigma.first().copied().unwrap_or(0.0);
        let above = |threshold: f64| sigma.iter().filter(|&&s| s > threshold).count();
        let rank = (above(2.0 * cutoff), above(cutoff / 2.0));
        Self { left: q.times(&u), right: right.map_or(v.clone(), |q| q.times(&v)), rank }
    }

    fn side(&self, side: Side) -> &Columns {
        if side == Side::Left { &self.left } else { &self.right }
    }

    /// φ between the first i vectors of one and the first j of the other.
    pub(crate) fn phi(&self, other: &Self, side: Side, i: usize, j: usize) -> f64 {
        let (x, y) = (self.side(side), other.side(side));
        let mut sum = Double::ZERO;
        for x in &x.columns[..i] {
            for y in &y.columns[..j] {
                let cosine = dot(x, y);
                sum = sum + cosine * cosine;
            }
        }
        (sum / Double::from(i.min(j) as f64)).to_f64()
    }
}

/// The conversion matrices of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Thetas {
    a_transposed: Columns,
    b: Columns,
    theta_a: Columns,
    theta_b: Columns,
}

impl Thetas {
    /// From W0 (out, in), A (r, in) and B (out, r); of a W0 of lower rank the `w0_rank` largest singular values count.
    pub(crate) fn of(w0: &Array2<f64>, a: &Array2<f64>, b: &Array2<f64>, convention: Convention, w0_rank: usize) -> Self {
        let (w, a_transposed, b) = (Columns::of(w0.view()), Columns::of(a.t()), Columns::of(b.view()));
        let solve = |w: &Columns, t: &Columns| {
            if w0_rank < w0.nrows().min(w0.ncols()) {
                w.truncated(t, w0_rank)
            } else if w.rows == w.columns.len() {
                w.solve(t)
            } else {
                w.least_squares(t)
            }
        };
        let (theta_a, theta_b) = if convention == Convention::Paper {
            let mut both = solve(&w, &Columns { rows: w.rows, columns: [&a_transposed.columns[..], &b.columns].concat() });
            let theta_b = Columns { rows: both.rows, columns: both.columns.split_off(b.columns.len()) };
            (both, theta_b)
        } else {
            (solve(&w.transposed(), &a_transposed), solve(&w, &b))
        };
        Self { a_transposed, b, theta_a, theta_b }
    }

    /// What an adapter of rank r has that holds the first rows of A and columns of B.
    pub(crate) fn bases(&self, r: usize) -> Bases {
        let first = |all: &Columns| Columns { rows: all.rows, columns: all.columns[..r].to_vec() };
        let [a_transposed, b, theta_a, theta_b] = [&self.a_transposed, &self.b, &self.theta_a, &self.theta_b].map(first);
        let lora_a = Basis::of(&a_transposed, None);
        Bases(vec![
            (MatrixKind::A, Basis::of(&theta_a, None)),
            (MatrixKind::B, Basis::of(&theta_b, None)),
            (MatrixKind::BA, Basis::of(&theta_b, Some(&a_transposed))),
            (MatrixKind::LoraA, Basis { left: lora_a.right, right: lora_a.left, ..lora_a }),
            (MatrixKind::LoraB, Basis::of(&b, None)),
        ])
    }
}

/// The singular vectors of all matrices of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Bases(Vec<(MatrixKind, Basis)>);

impl Bases {
    pub(crate) fn of(&self, matrix: MatrixKind) -> &Basis {
        &self.0.iter().find(|(kind, _)| *kind == matrix).unwrap().1
    }
}
