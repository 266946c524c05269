//! The `condlora` program.

fn main() {}
