//! The distance of what a function gives from what is exact.

/// The distance of two values in units in the last place of the exact one, as an `f32`; infinity counts as 2^128.
pub fn ulps(found: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if found.to_bits() == rounded.to_bits() || (found.is_nan() && exact.is_nan()) {
        return 0.0;
    }
    if found.is_nan() != exact.is_nan() || found.is_sign_negative() != exact.is_sign_negative() {
        return f64::INFINITY;
    }
    let exponent = (exact.abs().to_bits() >> 52) as i32 - 1023;
    let unit = f64::from(2.0f32).powi(exponent.clamp(-126, 127) - 23);
    let number = if found.is_infinite() { f64::from(2.0f32).powi(128) } else { f64::from(found.abs()) };
    let exact = exact.abs().min(f64::from(2.0f32).powi(128));
    (number - exact).abs() / unit
}
