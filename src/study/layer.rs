//! One base weight: read it, solve all targets through it, and keep the singular vectors that will be compared.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, s};

use super::Context;
use super::params::View;
use super::plan::{Group, GroupLayer, init_layer};
use crate::checkpoint::{Adapter, AdapterLayer, InputRecord, PairedLayer, RawTensor};
use crate::controls::{Control, Factor, draw};
use crate::conversion::{Conversion, ConversionMatrix, Equation, Target, WeightRows, Workspace, solve_theta};
use crate::error::{Error, Result};
use crate::linalg::norms::frobenius_of;
use crate::linalg::subspace::{SubspaceBasis, ThinQr};
use crate::similarity::vector_error;
use crate::table::ConversionRow;
use crate::terms::{Convention, MatrixKind, Side, Status};

/// A bound on φ above this makes its status `low_confidence`.
pub(super) const CONFIDENT: f64 = 1e-3;

/// What is kept of one base weight.
pub(super) struct SolvedLayer {
    /// One for each member of the group.
    pub(super) members: Vec<MemberLayer>,
    /// By rank: for each draw of the `w0` control, the vectors of each view.
    pub(super) w0_draws: BTreeMap<usize, Vec<Vec<Option<Array2<f64>>>>>,
    pub(super) inputs: Vec<InputRecord>,
}

/// What is kept of one adapter's layer.
pub(super) struct MemberLayer {
    pub(super) rank: usize,
    pub(super) conversion: ConversionRow,
    /// In the order of the study's matrices.
    pub(super) matrices: Vec<(MatrixKind, LayerMatrix)>,
    /// The untrained adapter's, in the same order; empty without `--init`.
    pub(super) init: Vec<(MatrixKind, LayerMatrix)>,
}

/// A matrix of one layer, ready to be compared.
pub(super) struct LayerMatrix {
    /// None where the matrix is zero, or where its solve overflowed.
    pub(super) basis: Option<SubspaceBasis>,
    zero: bool,
    reliable: bool,
    singular: bool,
    error_factor: f64,
    n: usize,
}

impl LayerMatrix {
    /// The singular vectors of one side.
    pub(super) fn vectors(&self, side: Side) -> Option<ArrayView2<'_, f64>> {
        self.basis.as_ref().map(|b| if side == Side::Left { b.left() } else { b.right() })
    }

    /// What is to be said of its first `i` vectors, whatever they are compared with.
    pub(super) fn status(&self, i: usize) -> Status {
        match &self.basis {
            None if self.zero => Status::Zero,
            Some(basis) if i > basis.rank() => Status::Rank,
            _ if !self.reliable => Status::Unreliable,
            _ if self.singular => Status::Singular,
            _ => Status::Ok,
        }
    }

    /// The error bound of its first `i` vectors.
    pub(super) fn error(&self, i: usize) -> f64 {
        self.basis.as_ref().map_or(f64::INFINITY, |basis| vector_error(self.n, self.error_factor, basis, i))
    }
}

/// A base weight as it is stored, or turned where the model stores it transposed; of a fused weight, the rows of one part.
struct StoredWeight {
    raw: RawTensor,
    first_row: usize,
    d_out: usize,
    d_in: usize,
    turned: Option<Array2<f64>>,
}

impl StoredWeight {
    fn new(raw: RawTensor, layer: &GroupLayer) -> Self {
        let (d_out, d_in) = (layer.d_out, layer.d_in);
        let (first_row, all_rows) = layer.block.as_ref().map_or((0, d_out), |block| (block.first, block.rows_of_whole));
        let turned = layer.transposed.then(|| {
            let (mut turned, mut stored) = (Array2::zeros((d_out, d_in)), vec![0.0; all_rows]);
            for column in 0..d_in {
                raw.widen_part(column * all_rows, &mut stored);
                turned.column_mut(column).iter_mut().zip(&stored[first_row..]).for_each(|(to, from)| *to = *from);
            }
            turned
        });
        Self { raw, first_row, d_out, d_in, turned }
    }

    fn stored(&self) -> &RawTensor {
        &self.raw
    }
}

impl WeightRows for StoredWeight {
    fn shape(&self) -> (usize, usize) {
        (self.d_out, self.d_in)
    }

    fn copy_rows(&self, first: usize, out: &mut [f64]) {
        match &self.turned {
            None => self.raw.widen_part((self.first_row + first) * self.d_in, out),
            Some(w) => w.copy_rows(first, out),
        }
    }
}

/// A and B of one adapter's layer: Aᵀ (in, r) and B (out, r).
struct FactorPair {
    a_transposed: Array2<f64>,
    b: Array2<f64>,
}

impl FactorPair {
    /// Reads the factors of `layer`; of a fused weight's B, the rows of one part.
    fn read(adapter: &Adapter, layer: &AdapterLayer, part: &GroupLayer, inputs: &mut Vec<InputRecord>) -> Result<Self> {
        let factors = adapter.read_factors(layer)?;
        inputs.extend(factors.inputs);
        let shaped = |rows: usize, columns: usize, values: Vec<f64>| {
            let found = values.len();
            Array2::from_shape_vec((rows, columns), values).map_err(|_| Error::Shape {
                what: "a factor as read",
                expected: format!("({rows}, {columns})"),
                found: format!("{found} values"),
            })
        };
        let mut b = shaped(layer.d_out, layer.rank, factors.b)?;
        if let Some(block) = &part.block {
            b = b.slice(s![block.first..block.first + part.d_out, ..]).to_owned();
        }
        Ok(Self { a_transposed: shaped(layer.rank, layer.d_in, factors.a)?.reversed_axes().as_standard_layout().into_owned(), b })
    }

    fn targets(&self, equation_a: Equation) -> [Target; 2] {
        [
            Target { values: self.a_transposed.clone(), equation: equation_a },
            Target { values: self.b.clone(), equation: Equation::W0 },
        ]
    }
}

/// Reads and solves layer `index` of a group for all its members and draws.
pub(super) fn solve_layer(context: &Context<'_>, group: &Group, index: usize, workspace: &mut Workspace) -> Result<SolvedLayer> {
    let plan = context.plan;
    let layer = &group.layers[index];
    let mut inputs = Vec::new();

    let (w0, trained, untrained) = context.clock.read.time(|| -> Result<_> {
        let raw = plan.bases[group.base].read(&layer.tensor)?;
        inputs.push(InputRecord {
            file: raw.file.clone(),
            tensor: Some(raw.name.clone()),
            dtype: Some(raw.dtype.to_string()),
            blake3: raw.hash.clone(),
        });
        let w0 = StoredWeight::new(raw, layer);
        let mut trained = Vec::with_capacity(group.members.len());
        let mut untrained = Vec::with_capacity(group.members.len());
        for &(a, m) in &group.members {
            let planned = &plan.adapters[a];
            let paired = &planned.modules[m].layers[index];
            trained.push((paired, FactorPair::read(&planned.adapter, &paired.adapter_layer, layer, &mut inputs)?));
            let init = planned.init.as_ref().and_then(|init| Some((init, init_layer(init, &paired.adapter_layer)?)));
            untrained.push(init.map(|(init, of)| FactorPair::read(init, of, layer, &mut inputs)).transpose()?);
        }
        Ok((w0, trained, untrained))
    })?;

    let equation_a = if group.convention == Convention::Paper { Equation::W0 } else { Equation::W0Transposed };
    let ranks = context.drawn_ranks(group, index);
    let largest_rank = ranks.last().copied();
    let mut targets: Vec<Target> = Vec::new();
    for (_, factors) in &trained {
        targets.extend(factors.targets(equation_a));
    }
    for factors in untrained.iter().flatten() {
        targets.extend(factors.targets(equation_a));
    }
    let first_draw = targets.len();
    if let Some(rank) = largest_rank {
        for number in 0..context.draws() {
            let gaussian = |factor, length| draw(context.seed(), Control::W0, &layer.stream(), factor, number, length, rank);
            let pair = FactorPair { a_transposed: gaussian(Factor::A, layer.d_in), b: gaussian(Factor::B, layer.d_out) };
            targets.extend(pair.targets(equation_a));
        }
    }

    let solved = context.clock.solve.time(|| solve_theta(&w0, &targets, context.config.params().rcond, workspace));
    let solved = solved.map_err(|error| match error {
        // The solver only knows that something is not finite; the tensor knows what and where.
        Error::NonFinite { .. } => w0.stored().check_finite().err().unwrap_or(error),
        _ => error,
    })?;

    context.clock.subspaces.time(|| {
        let matrices = &context.config.params().matrices;
        let n = layer.d_out.max(layer.d_in);
        let mut members = Vec::with_capacity(trained.len());
        let mut next_init = 2 * trained.len();
        for (k, ((paired, factors), init)) in trained.iter().zip(&untrained).enumerate() {
            let pair = Solved { conversion: &solved, a: &solved.matrices[2 * k], b: &solved.matrices[2 * k + 1], n };
            let observed = pair.compare(factors, matrices)?;
            let initial = match init {
                Some(factors) => {
                    let pair = Solved { a: &solved.matrices[next_init], b: &solved.matrices[next_init + 1], ..pair };
                    next_init += 2;
                    pair.compare(factors, matrices)?.matrices
                }
                None => Vec::new(),
            };
            let (adapter, module) = group.members[k];
            let planned = &plan.adapters[adapter];
            let (name, module) = (&planned.adapter.name, &planned.modules[module].name);
            members.push(MemberLayer {
                rank: paired.adapter_layer.rank,
                conversion: pair.row(name, module, paired, factors, group.convention, &observed),
                matrices: observed.matrices,
                init: initial,
            });
        }
        let mut w0_draws = BTreeMap::new();
        for &rank in &ranks {
            let views = context.drawn_views();
            let cut = |values: &Array2<f64>| values.slice(s![.., ..rank]).to_owned();
            let drawn: Result<Vec<_>> = (0..context.draws())
                .map(|number| {
                    let at = first_draw + 2 * number;
                    let thetas = [cut(&solved.matrices[at].theta), cut(&solved.matrices[at + 1].theta)];
                    drawn_vectors(&views, &thetas[0], &thetas[1], &cut(&targets[at].values), context.most_vectors(rank))
                })
                .collect();
            w0_draws.insert(rank, drawn?);
        }
        Ok(SolvedLayer { members, w0_draws, inputs })
    })
}

/// The vectors of each view for matrices drawn in place of Θ_A, Θ_B and (for BA) Aᵀ; none for a matrix that is zero or too small in rank.
pub(super) fn drawn_vectors(
    views: &[View],
    theta_a: &Array2<f64>,
    theta_b: &Array2<f64>,
    a_transposed: &Array2<f64>,
    most: usize,
) -> Result<Vec<Option<Array2<f64>>>> {
    let wanted = |matrix| views.iter().any(|v: &View| v.matrix == matrix);
    // A W0 near the end of the range of f64 lets a solution overflow: that draw has no vectors then.
    let finite = |theta: &Array2<f64>| theta.iter().all(|v| v.is_finite());
    let with_b = (wanted(MatrixKind::B) || wanted(MatrixKind::BA)) && finite(theta_b);
    let basis_a = (wanted(MatrixKind::A) && finite(theta_a)).then(|| SubspaceBasis::of(theta_a.view())).transpose()?;
    let qr_b = with_b.then(|| ThinQr::of(theta_b.view())).transpose()?;
    let basis_b = qr_b.as_ref().filter(|_| wanted(MatrixKind::B)).map(ThinQr::basis).transpose()?;
    let basis_ba = match &qr_b {
        Some(qr_b) if wanted(MatrixKind::BA) => Some(qr_b.basis_of_product(&ThinQr::of(a_transposed.view())?)?),
        _ => None,
    };
    Ok(views
        .iter()
        .map(|view| {
            let basis = match view.matrix {
                MatrixKind::A => basis_a.as_ref(),
                MatrixKind::B => basis_b.as_ref(),
                MatrixKind::BA => basis_ba.as_ref(),
                MatrixKind::LoraA | MatrixKind::LoraB => None,
            }?;
            let vectors = if view.side == Side::Left { basis.left() } else { basis.right() };
            (basis.rank() > 0).then(|| vectors.slice(s![.., ..most.min(basis.rank())]).to_owned())
        })
        .collect())
}

/// The two conversion matrices of one adapter's layer.
#[derive(Clone, Copy)]
struct Solved<'a> {
    conversion: &'a Conversion,
    a: &'a ConversionMatrix,
    b: &'a ConversionMatrix,
    n: usize,
}

impl Solved<'_> {
    /// The matrices wanted, and what `conversion.csv` says of Θ_A and Θ_B.
    fn compare(&self, factors: &FactorPair, kinds: &[MatrixKind]) -> Result<Compared> {
        let (zero_a, zero_b) = (is_zero(&factors.a_transposed), is_zero(&factors.b));
        let converted = |basis: Option<SubspaceBasis>, zero: bool, matrix: &ConversionMatrix| LayerMatrix {
            basis,
            zero,
            reliable: matrix.reliable,
            singular: matrix.singular,
            error_factor: matrix.error_factor,
            n: self.n,
        };
        let plain = |basis: Option<SubspaceBasis>| LayerMatrix {
            zero: basis.is_none(),
            basis,
            reliable: true,
            singular: false,
            error_factor: 1.0,
            n: self.n,
        };
        let usable = |zero: bool, matrix: &ConversionMatrix| !zero && matrix.theta.iter().all(|v| v.is_finite());
        let qr_a = (!zero_a).then(|| ThinQr::of(factors.a_transposed.view())).transpose()?;
        let qr_theta_b = usable(zero_b, self.b).then(|| ThinQr::of(self.b.theta.view())).transpose()?;
        let theta_a =
            converted(usable(zero_a, self.a).then(|| SubspaceBasis::of(self.a.theta.view())).transpose()?, zero_a, self.a);
        let theta_b = converted(qr_theta_b.as_ref().map(ThinQr::basis).transpose()?, zero_b, self.b);

        let rank = factors.b.ncols();
        let status = [&theta_a, &theta_b].map(|m| with_confidence(m.status(rank), m.error(rank)));
        // ‖B·A‖_F = ‖B·Rᵀ‖_F with Aᵀ = Q·R.
        let norm_of_product = qr_a.as_ref().map_or(0.0, |qr| frobenius_of(&factors.b.dot(&qr.r.t())));

        let (mut theta_a, mut theta_b) = (Some(theta_a), Some(theta_b));
        let mut matrices = Vec::with_capacity(kinds.len());
        for &kind in kinds {
            let matrix = match kind {
                MatrixKind::A => theta_a.take(),
                MatrixKind::B => theta_b.take(),
                MatrixKind::BA => {
                    let both = qr_theta_b.as_ref().zip(qr_a.as_ref());
                    Some(converted(both.map(|(b, a)| b.basis_of_product(a)).transpose()?, zero_a || zero_b, self.b))
                }
                // Right vectors of A are the left ones of Aᵀ.
                MatrixKind::LoraA => Some(plain(qr_a.as_ref().map(ThinQr::basis).transpose()?.map(SubspaceBasis::transposed))),
                MatrixKind::LoraB => Some(plain((!zero_b).then(|| SubspaceBasis::of(factors.b.view())).transpose()?)),
            };
            matrices.extend(matrix.map(|m| (kind, m)));
        }
        Ok(Compared { matrices, status: status[0].worse(status[1]), norm_of_product })
    }

    fn row(
        &self,
        adapter: &str,
        module: &str,
        paired: &PairedLayer,
        factors: &FactorPair,
        convention: Convention,
        of: &Compared,
    ) -> ConversionRow {
        let layer = &paired.adapter_layer;
        ConversionRow {
            adapter: adapter.to_owned(),
            module: module.to_owned(),
            layer: layer.layer,
            adapter_key: layer.adapter_key.clone(),
            tensor: paired.tensor.clone(),
            out_features: paired.d_out,
            in_features: paired.d_in,
            rank: layer.rank,
            scaling: layer.scaling,
            convention,
            method: self.a.method.max(self.b.method),
            w0_dtype: paired.w0_dtype.clone(),
            adapter_dtype: layer.dtype.clone(),
            w0_rank: self.a.w0_rank.min(self.b.w0_rank),
            w0_condition: Some(self.conversion.condition).filter(|c| c.is_finite()),
            residual_a: self.a.residual,
            residual_b: self.b.residual,
            backward_error_a: self.a.backward_error,
            backward_error_b: self.b.backward_error,
            norm_a: frobenius_of(&factors.a_transposed),
            norm_b: frobenius_of(&factors.b),
            norm_delta: layer.scaling.abs() * of.norm_of_product,
            status: of.status,
        }
    }
}

/// What one adapter's layer gives.
struct Compared {
    matrices: Vec<(MatrixKind, LayerMatrix)>,
    status: Status,
    norm_of_product: f64,
}

/// Adds what the bound says to what is already known.
pub(super) fn with_confidence(status: Status, bound: f64) -> Status {
    if status == Status::Ok && bound > CONFIDENT { Status::LowConfidence } else { status }
}

fn is_zero(values: &Array2<f64>) -> bool {
    values.iter().all(|&v| v == 0.0)
}
