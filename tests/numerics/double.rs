//! Double-double arithmetic (Dekker 1971; Knuth's sums, products by fused multiply-add): 106 bits, a relative error of a few 2⁻¹⁰⁴ an operation.
//!
//! Written to be easy to check, because the program's f64 results are checked against it. Its values stay far from the ends of the range of f64.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// The sum of two f64, the second at most half a unit in the last place of the first.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Double {
    high: f64,
    low: f64,
}

impl Double {
    pub(crate) const ZERO: Self = Self { high: 0.0, low: 0.0 };
    pub(crate) const ONE: Self = Self { high: 1.0, low: 0.0 };

    /// The exact sum of a and b, |a| ≥ |b| or a = 0.
    fn ordered(a: f64, b: f64) -> Self {
        let high = a + b;
        Self { high, low: b - (high - a) }
    }

    /// The exact sum.
    fn sum(a: f64, b: f64) -> Self {
        let high = a + b;
        let back = high - a;
        Self { high, low: (a - (high - back)) + (b - back) }
    }

    /// The exact product.
    fn product(a: f64, b: f64) -> Self {
        let high = a * b;
        Self { high, low: a.mul_add(b, -high) }
    }

    /// Exactly, for integers below 2¹⁰⁰.
    pub(crate) fn of_integer(value: i128) -> Self {
        assert!(value.unsigned_abs() < 1 << 100);
        let high = value as f64;
        Self::ordered(high, (value - high as i128) as f64)
    }

    pub(crate) fn to_f64(self) -> f64 {
        self.high
    }

    pub(crate) fn abs(self) -> Self {
        if self.high < 0.0 { -self } else { self }
    }

    /// One Newton step from the root in f64.
    pub(crate) fn sqrt(self) -> Self {
        if self.high <= 0.0 {
            return Self::ZERO;
        }
        let root = Self::from(self.high.sqrt());
        root + (self - root * root) / (root + root)
    }
}

impl From<f64> for Double {
    fn from(high: f64) -> Self {
        Self { high, low: 0.0 }
    }
}

impl Neg for Double {
    type Output = Self;
    fn neg(self) -> Self {
        Self { high: -self.high, low: -self.low }
    }
}

impl Add for Double {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (high, low) = (Self::sum(self.high, other.high), Self::sum(self.low, other.low));
        let first = Self::ordered(high.high, high.low + low.high);
        Self::ordered(first.high, first.low + low.low)
    }
}

impl Sub for Double {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Double {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let product = Self::product(self.high, other.high);
        Self::ordered(product.high, product.low + (self.high * other.low + self.low * other.high))
    }
}

impl Div for Double {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let first = self.high / other.high;
        let rest = self - other * Self::from(first);
        let second = rest.high / other.high;
        let third = (rest - other * Self::from(second)).high / other.high;
        Self::ordered(first, second) + Self::from(third)
    }
}
