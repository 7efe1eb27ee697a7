#!/bin/sh
# Builds the README's functions in Rust with a main() around them, and runs it. Arguments: folder of the snippets, folder of the
# installed libraries, C compiler, Rust compiler.
set -eu
cd "$1"
{
  cat quantize.rs
  cat <<'END'
fn main() {
    let mut weights = vec![0.5f32; 4 * 256];
    let bytes = quantize(12, &mut weights, 4, 256).unwrap();  // 12: q4_K
    assert_eq!(bytes.len(), 4 * 144);
    assert!(bytes.iter().any(|&b| b != 0));
    weights[300] = f32::NAN;
    let error = quantize(12, &mut weights, 4, 256).unwrap_err();
    assert!(error.contains("row 1"), "{}", error);
}
END
} >main.rs
"$4" --edition 2021 -D warnings -L "$2" main.rs -o product_rust
LD_LIBRARY_PATH="$2" ./product_rust
