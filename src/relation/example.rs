//! Layers for the tests of this module.

use ndarray::Array2;

use super::images::images_of;
use super::layer::{BaseLayer, DrawnImages, Images, RelatedLayer};
use super::update::Update;
use super::yardstick::{Yardstick, YardstickStudy};
use crate::conversion::Equation;
use crate::error::Result;
use crate::linalg::norms::frobenius_of;
use crate::linalg::random::normal_stream;
use crate::linalg::weight_basis::WeightBasis;

/// W0, B, Aᵀ and s of a layer with the number 4.
pub(super) struct Example {
    w0: Array2<f64>,
    b: Array2<f64>,
    a_transposed: Array2<f64>,
    scaling: f64,
    basis: Option<WeightBasis>,
    drawn: DrawnImages,
    images: Option<Images>,
}

impl Example {
    pub(super) fn new(w0: Array2<f64>, b: Array2<f64>, a_transposed: Array2<f64>, scaling: f64, decomposed: bool) -> Self {
        let basis = decomposed.then(|| basis_of(&w0));
        let mut example = Self { w0, b, a_transposed, scaling, basis, drawn: DrawnImages::default(), images: None };
        if !decomposed {
            let base = example.base("w0");
            let images = images_of(&example.w0, &[example.layer(&base)]);
            example.images = images.unwrap().pop();
        }
        example
    }

    pub(super) fn rank(&self) -> usize {
        self.b.ncols()
    }

    /// Its base weight, with a random stream of its own.
    pub(super) fn base<'a>(&'a self, stream: &'a str) -> BaseLayer<'a> {
        BaseLayer { shape: self.w0.dim(), basis: self.basis.as_ref(), drawn: &self.drawn, stream }
    }

    pub(super) fn layer<'a>(&'a self, base: &'a BaseLayer<'a>) -> RelatedLayer<'a> {
        RelatedLayer {
            number: Some(4.into()),
            base,
            a_transposed: self.a_transposed.view(),
            b: self.b.view(),
            scaling: self.scaling,
            equation_a: if self.w0.is_square() { Equation::W0 } else { Equation::W0Transposed },
            images: self.images.as_ref(),
        }
    }

    /// What its base weight gives by itself.
    pub(super) fn yardstick(&self, stream: &str, counts: &[usize], seed: u64, draws: usize) -> Result<Yardstick> {
        Yardstick::of(
            &self.base(stream),
            (&self.w0, frobenius_of(&self.w0)),
            counts,
            YardstickStudy { seed, draws, values: true },
        )
    }

    /// Singular vectors with the opposite signs, which are as right.
    pub(super) fn turn_signs_of_basis(&mut self) {
        if let Some(basis) = &mut self.basis {
            for side in [&mut basis.left, &mut basis.right] {
                side.columns_mut().into_iter().step_by(2).for_each(|mut column| column.mapv_inplace(|v| -v));
            }
        }
    }

    /// What is made of its update.
    pub(super) fn with<T>(&self, make: impl FnOnce(Update<'_, '_>) -> T) -> T {
        let base = self.base("w0");
        let layer = self.layer(&base);
        make(Update::of(&layer).unwrap())
    }
}

pub(super) fn gaussian(label: &str, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), normal_stream(7, &[label.as_bytes()], rows * columns)).unwrap()
}

pub(super) fn basis_of(w0: &Array2<f64>) -> WeightBasis {
    WeightBasis::by_svd(w0.view()).unwrap()
}
