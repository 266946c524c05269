//! Tensors that are views: their values are stored with gaps between them, or in another order.

use super::tensor::TensorInfo;

/// The steps of a view, in elements, outermost first. Its first element is the first of the span that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strided {
    pub(crate) strides: Vec<usize>,
    /// Bytes of one element.
    pub(crate) size: usize,
}

impl Strided {
    /// The values in row-major order, from the bytes between the view's first and last element.
    pub(crate) fn gather(&self, span: &[u8], info: &TensorInfo) -> Vec<u8> {
        let mut out = Vec::with_capacity(info.len() * self.size);
        let mut index = vec![0_usize; info.shape.len()];
        for _ in 0..info.len() {
            let at: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>() * self.size;
            out.extend_from_slice(&span[at..at + self.size]);
            for (place, size) in index.iter_mut().zip(&info.shape).rev() {
                *place += 1;
                if *place < *size {
                    break;
                }
                *place = 0;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;

    #[test]
    fn a_transposed_part_is_gathered() {
        // Columns 1 and 2 of a (3, 4) matrix of bytes, transposed.
        let stored: Vec<u8> = (0..12).collect();
        let info = TensorInfo { dtype: Dtype::U8, shape: vec![2, 3], begin: 1, end: 11 };
        let view = Strided { strides: vec![1, 4], size: 1 };
        assert_eq!(view.gather(&stored[1..11], &info), [1, 5, 9, 2, 6, 10]);
    }
}
