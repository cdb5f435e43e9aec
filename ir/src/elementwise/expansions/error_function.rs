//! The error function, on the magnitude `t`: an odd polynomial below a limit, `1 - e^-q(t)` above.

use super::{Coefficients, at_most, either, exp, polynomial};
use crate::BinaryOp;
use crate::kernel::{Emit, ScalarType, ValueId};

/// `erf t / t - 1` in `t^2`, up to 0.92 in `f32`, 1 in `f64`.
const SMALL: Coefficients = Coefficients {
    narrow: &[
        7.991_272e-5,
        -8.048_883e-4,
        5.192_359e-3,
        -2.685_572_4e-2,
        1.128_362_6e-1,
        -3.761_263e-1,
        1.283_791_7e-1,
    ],
    wide: &[
        6.762_801_638_832_501e-11,
        -1.187_655_559_183_910_5e-9,
        1.479_835_723_436_991_1e-8,
        -1.637_237_189_169_822_5e-7,
        1.646_324_730_713_026_8e-6,
        -1.492_574_818_020_635_4e-5,
        1.205_533_816_140_065_6e-4,
        -8.548_327_199_358_272e-4,
        5.223_977_629_245_65e-3,
        -2.686_617_064_563_189_7e-2,
        1.128_379_167_095_878_3e-1,
        -3.761_263_890_318_387_6e-1,
        1.283_791_670_955_126e-1,
    ],
};

/// `-ln(1 - erf t)`: in `f32` less `t` and by `t`, in `t`; in `f64` in `t - 2`.
const LARGE: Coefficients = Coefficients {
    narrow: &[
        5.298_297e-6,
        -4.995_329e-5,
        -2.738_353_2e-5,
        2.869_012_8e-3,
        -2.257_549_2e-2,
        1.051_694_2e-1,
        6.356_732e-1,
        1.285_414_4e-1,
    ],
    wide: &[
        4.785_218_589_330_536e-12,
        -3.624_096_965_217_363_5e-11,
        7.156_934_844_615_421e-11,
        2.548_369_631_365_551e-10,
        -2.608_819_937_544_129e-9,
        1.399_485_818_857_326_9e-8,
        -5.769_760_322_238_546e-8,
        1.731_653_617_962_138_7e-7,
        -2.037_267_365_904_713e-7,
        -1.952_182_432_520_12e-6,
        2.070_647_117_684_174_6e-5,
        -1.353_093_322_710_844_1e-4,
        7.323_993_775_612_676e-4,
        -3.570_756_347_636_898_5e-3,
        1.646_511_813_745_948e-2,
        9.237_508_418_239_402e-1,
        4.418_160_805_994_411,
        5.364_941_264_616_636,
    ],
};

/// `erf x`. From 4 in `f32`, 6 in `f64`, on it is 1.
pub(in crate::elementwise) fn erf(e: &mut dyn Emit, x: ValueId) -> ValueId {
    let (magnitude, most) = (e.abs(x), either(e, x, 4.0, 6.0));
    let t = at_most(e, magnitude, most);
    let s = e.mul(t, t);
    let p = polynomial(e, s, &SMALL);
    let small = e.fma(p, t, t);
    let q = if e.type_of(x) == ScalarType::F64 {
        let middle = e.number(t, 2.0);
        let u = e.sub(t, middle);
        polynomial(e, u, &LARGE)
    } else {
        let q = polynomial(e, t, &LARGE);
        e.fma(q, t, t)
    };
    let q = e.neg(q);
    let (power, one) = (exp(e, q), e.number(x, 1.0));
    let large = e.sub(one, power);
    let limit = either(e, x, 0.92, 1.0);
    let is_small = e.lt(t, limit);
    let value = e.select(is_small, small, large);
    e.binary(BinaryOp::Copysign, value, x)
}
