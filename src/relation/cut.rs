//! Which of W0's singular directions Θ is made of.

use std::fmt;
use std::str::FromStr;

use crate::table::CutRow;
use crate::terms::serde_as_text;

/// Which of W0's singular directions count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// Θ from the singular values above this share of the largest.
    Below(f64),
    /// `W0ᵀ·T` in place of `W0⁻¹·T`: no inverse at all.
    Adjoint,
}

impl Cut {
    /// The cuts of `--cuts` without a list.
    pub const LIST: [Self; 8] = [
        Self::Below(0.0),
        Self::Below(0.03),
        Self::Below(0.1),
        Self::Below(0.2),
        Self::Below(0.3),
        Self::Below(0.4),
        Self::Below(0.5),
        Self::Adjoint,
    ];

    /// Whether W0 has to be decomposed for it.
    #[must_use]
    pub fn needs_basis(self) -> bool {
        self != Self::Adjoint
    }

    /// How many of these singular values count, `rank` of which are above rounding level.
    #[must_use]
    pub fn kept(self, sigma: &[f64], rank: usize) -> usize {
        let largest = sigma.first().copied().unwrap_or(0.0);
        match self {
            Self::Below(share) => sigma[..rank].iter().take_while(|&&value| value > share * largest).count(),
            Self::Adjoint => rank,
        }
    }

    /// What a target's coordinates are multiplied by, up to a factor that changes no singular vector and keeps all of them within the range of f64.
    #[must_use]
    pub fn weights(self, sigma: &[f64]) -> Vec<f64> {
        match (self, sigma) {
            (_, []) => Vec::new(),
            (Self::Below(_), [.., smallest]) => sigma.iter().map(|value| smallest / value).collect(),
            (Self::Adjoint, [largest, ..]) => sigma.iter().map(|value| value / largest).collect(),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(share) => share.fmt(f),
            Self::Adjoint => f.pad(CutRow::ADJOINT),
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == CutRow::ADJOINT {
            return Ok(Self::Adjoint);
        }
        let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
        share.map(Self::Below).ok_or_else(|| "expected a number from 0 to below 1, or adjoint".to_owned())
    }
}

serde_as_text!(Cut);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_shares_or_the_adjoint() {
        assert_eq!(("0.4".parse(), "adjoint".parse()), (Ok(Cut::Below(0.4)), Ok(Cut::Adjoint)));
        assert!(["1", "-0.1", "nan", ""].into_iter().all(|text| text.parse::<Cut>().is_err()));
        assert_eq!(Cut::LIST.map(|cut| cut.to_string()).join(","), "0,0.03,0.1,0.2,0.3,0.4,0.5,adjoint");
    }

    #[test]
    fn what_is_above_the_cut_is_kept() {
        let sigma = [4.0, 2.0, 1.0, 1e-20];
        assert_eq!([0.0, 0.25, 0.5, 0.9].map(|share| Cut::Below(share).kept(&sigma, 3)), [3, 2, 1, 1]);
        assert_eq!(Cut::Adjoint.kept(&sigma, 3), 3);
        assert_eq!(
            (Cut::Adjoint.weights(&sigma[..3]), Cut::Below(0.0).weights(&sigma[..3])),
            (vec![1.0, 0.5, 0.25], vec![0.25, 0.5, 1.0])
        );
        assert!(Cut::Adjoint.weights(&[]).is_empty());
    }
}
