#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| condlora_fuzz::run("training", bytes));
