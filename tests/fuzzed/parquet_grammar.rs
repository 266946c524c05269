//! Tables in Parquet: those that the CSV's grammar writes, and what their bytes are made of.

use super::mutation::SplitMix;
use super::{entry, grammar};

pub(crate) const THRIFT: &[&[u8]] = &[
    b"PAR1",
    b"PARE",
    b"\0",
    b"\x15\0",
    b"\x15\x02",
    b"\x15\x06",
    b"\x15\x10",
    b"\x15\x12",
    b"\x16\x02",
    b"\x19\x1c",
    b"\x19\x2c",
    b"\x19\xfc\xff\xff\xff\xff\x07",
    b"\x19\xf1\xff\xff\xff\xff\x07",
    b"\x1b\xff\xff\xff\xff\x07\xcc",
    b"\x18\x05layer",
    b"\x1c\x1c\x1c\x1c\x1c\x1c\x1c\x1c",
    b"\x2c\x15",
    b"\x25\0",
    b"\x25\x02",
    b"\x25\x04",
    b"\x35\x04",
    // The largest 32-bit number, the smallest, and 64-bit ones, as varints of zigzag.
    b"\xfe\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x0f",
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x80\x80\x08",
    b"\x01",
    b"\x02",
    // Runs: of a level, of the same value very often, of packed values that are not there.
    b"\x02\0\0\0\x06\x01",
    b"\xfe\xff\xff\xff\x0f\0",
    b"\xff\xff\xff\xff\x0f",
    b"\x20",
    b"\x21",
    b"\xff\xff\xff\x7f",
    b"\xff",
    b"lora_A",
    b"ok",
    b"\xe2\x80\xae",
    b"\x1b[2J",
];

/// A table as it is written.
pub(crate) fn table(rng: &mut SplitMix) -> Vec<u8> {
    loop {
        if let Some(table) = entry::typed(&grammar::rows(rng)) {
            return table;
        }
    }
}

/// Writes the footer's length anew, which stands behind it: from where a footer begins, with its version and the list of its columns.
pub(crate) fn mend_footer(bytes: &mut [u8]) {
    const BEGIN: &[u8] = b"\x15\x02\x19";
    let Some(end) = bytes.len().checked_sub(8) else { return };
    let Some(begin) = bytes[..end].windows(BEGIN.len()).rposition(|three| three == BEGIN) else { return };
    let length = (end - begin) as u32;
    bytes[end..end + 4].copy_from_slice(&length.to_le_bytes());
}

/// A table of rows that are all the same, which takes next to no bytes.
pub(crate) fn equal_rows(count: usize, name: &str) -> Vec<u8> {
    const ACROSS: u8 = 4;
    let header = "module,layer,matrix,side,i,j,adapter_a,adapter_b,phi,gaussian_expected,status\n";
    let text = header.to_owned() + &format!("q,,A,left,8,8,{name},b,,,rank\n").repeat(count);
    entry::typed(&[&[ACROSS], text.as_bytes()].concat()).unwrap()
}
