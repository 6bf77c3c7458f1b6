//! What tests have to know of the machine they run on.

/// Whether products of unsigned and signed 8-bit integers are summed up exactly. x86 processors
/// without VNNI add two of them in 16 bits, which saturates, so that `int8-dynamic` layers come out
/// further from their originals in onnxruntime and rten; tests expect less of figures there.
pub fn sums_int8_exactly() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512vnni")
            || std::arch::is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// The least SQNR of something with `int8-dynamic` layers, in dB: half where sums saturate.
pub fn int8_floor_db(floor: f64) -> f64 {
    if sums_int8_exactly() { floor } else { floor / 2.0 }
}
