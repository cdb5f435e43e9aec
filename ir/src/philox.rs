//! Philox 4x32-10, the counter-based random number generator: a number is a pure function of seed, draw and element.
//!
//! So a result does not depend on fusion, threads, vector width or device, and a number can be computed again instead of
//! kept. J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.

/// Constants of a round: the two multipliers, and what the key words grow by.
pub const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key words grow by from round to round.
pub const KEY_STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
/// The number of rounds.
pub const ROUNDS: u32 = 10;

/// The four random words of a counter under a key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..ROUNDS {
        let left = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let right = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(right >> 32) as u32 ^ c[1] ^ k[0], right as u32, (left >> 32) as u32 ^ c[3] ^ k[1], left as u32];
        k = [k[0].wrapping_add(KEY_STEPS[0]), k[1].wrapping_add(KEY_STEPS[1])];
    }
    c
}

/// The random word of an element of a draw: word 0 of counter (element, draw) under key seed, each 64 bits low word first.
pub fn philox(seed: u64, draw: u64, element: u64) -> u32 {
    let split = |v: u64| [v as u32, (v >> 32) as u32];
    let ([e0, e1], [d0, d1]) = (split(element), split(draw));
    philox4x32([e0, e1, d0, d1], split(seed))[0]
}

/// The uniform number in `[0, 1)` that a word stands for: its upper 24 bits, so that it is exact in `f32`.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 / 16_777_216.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(philox4x32([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let key = [0xa409_3822, 0x299f_31d0];
        assert_eq!(philox4x32(pi, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
        assert_eq!(philox(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e, 0x85a3_08d3_243f_6a88), 0xd16c_fe09);
    }

    #[test]
    fn uniform_numbers_stay_below_one() {
        assert_eq!(uniform(u32::MAX), 1.0 - f32::EPSILON / 2.0);
        assert_eq!(uniform(255), 0.0);
    }
}
