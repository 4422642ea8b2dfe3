//! The natural logarithm. It has the same bits on every platform, because it uses nothing but
//! bit operations and the four operations that IEEE 754 rounds correctly, in a written order.
//!
//! A logarithm taken from the platform differs between C libraries in its last bit, and a distance
//! rounded to a tick can turn that bit into another trade.
//!
//! Method: x = 2^k m with m in [sqrt(1/2), sqrt(2)), so that ln x = k ln 2 + ln m. With f = m - 1
//! (exact) and s = f / (2 + f), ln m = 2 atanh(s) = 2s + s^3 (2/3 + 2/5 s^2 + 2/7 s^4 + ...).
//! Because 2s = f - s f and s f = f^2/2 - s f^2/2, this is f less a small correction, so an
//! argument near 1 loses nothing (P. T. P. Tang, "Table-driven implementation of the logarithm
//! function in IEEE floating-point arithmetic", ACM TOMS 16, 1990, treats the same reduction).
//! The series is cut after seven terms whose coefficients are those of the polynomial of smallest
//! relative error over |s| <= (sqrt(2) - 1) / (sqrt(2) + 1) = 0.1716, found by Remez exchange in
//! 60-digit arithmetic; its error is 1.3e-18.

/// High part of ln 2, cut to 40 bits so that its product with any exponent is exact.
const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEFA_2000);
/// ln 2 less its high part.
const LN_2_LOW: f64 = 7.371_002_565_167_799e-13;

/// Coefficients of s^2, s^4, ... in 2 atanh(s) / s - 2.
const SERIES: [f64; 7] = [
    0.666_666_666_666_673_4,
    0.399_999_999_994_146_6,
    0.285_714_287_423_911_53,
    0.222_221_985_728_660_86,
    0.181_835_643_410_557_4,
    0.153_140_502_009_580_1,
    0.147_959_529_714_182_55,
];

const MANTISSA: u64 = 0x000F_FFFF_FFFF_FFFF;
/// Bits of sqrt(1/2), the lower end of m.
const ROOT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
/// Added to the bits of x, it carries into the exponent exactly when the mantissa is that of an
/// m below 1, and leaves the distance of m from sqrt(1/2) in the low 52 bits.
const SHIFT: u64 = 0x3FF0_0000_0000_0000 - ROOT_HALF;
/// Bits of 2^52: a number below 2^52 put into its mantissa is that number, plus 2^52.
const TWO_52: u64 = 0x4330_0000_0000_0000;
/// 2^52 plus the bias of the exponent.
const TWO_52_BIASED: f64 = 4_503_599_627_370_496.0 + 1023.0;

/// Returns the natural logarithm of a positive, normal, finite number, to within one unit in the
/// last place.
///
/// There is no branch, so that a loop over it becomes vector code. For every other argument (zero,
/// negative, subnormal, infinite, NaN) the result has no meaning; [`ln_checked`] takes those.
///
/// # Examples
/// ```
/// # use clustercore_core::log::ln;
/// assert_eq!(ln(1.0), 0.0);
/// assert_eq!(ln(2.0), core::f64::consts::LN_2);
/// ```
#[inline(always)]
#[must_use]
pub fn ln(x: f64) -> f64 {
    let shifted = x.to_bits().wrapping_add(SHIFT);
    let exponent = f64::from_bits((shifted >> 52) | TWO_52) - TWO_52_BIASED;
    let f = f64::from_bits((shifted & MANTISSA).wrapping_add(ROOT_HALF)) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let [c1, c2, c3, c4, c5, c6, c7] = SERIES;
    let odd = z * (c1 + w * (c3 + w * (c5 + w * c7)));
    let even = w * (c2 + w * (c4 + w * c6));
    let series = odd + even;
    let half_square = 0.5 * f * f;
    let correction = s * (half_square + series) + exponent * LN_2_LOW;
    exponent * LN_2_HIGH - ((half_square - correction) - f)
}

/// Returns the natural logarithm of any number: minus infinity at zero, NaN below zero and for
/// NaN, infinity at infinity, and the logarithm of [`ln`] elsewhere, subnormal numbers included.
///
/// # Examples
/// ```
/// # use clustercore_core::log::ln_checked;
/// assert_eq!(ln_checked(0.0), f64::NEG_INFINITY);
/// assert!(ln_checked(-1.0).is_nan());
/// ```
#[must_use]
pub fn ln_checked(x: f64) -> f64 {
    /// 2^54, which makes every subnormal number normal.
    const SCALE: f64 = 18_014_398_509_481_984.0;
    if x.is_nan() || x < 0.0 {
        f64::NAN
    } else if x == 0.0 {
        f64::NEG_INFINITY
    } else if x == f64::INFINITY {
        x
    } else if x < f64::MIN_POSITIVE {
        ln(x * SCALE) - 54.0 * core::f64::consts::LN_2
    } else {
        ln(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units_apart(found: f64, expected: f64) -> u64 {
        found.to_bits().abs_diff(expected.to_bits())
    }

    /// Logarithms rounded from 60 digits.
    const KNOWN: [(f64, f64); 9] = [
        (3.0, 1.0986122886681098),
        (0.25, -1.3862943611198906),
        (7.0, 1.9459101490553132),
        (1.0001, 9.999500033329732e-05),
        (0.9999, -0.00010000500033334732),
        (1.7, 0.5306282510621704),
        (5.5, 1.7047480922384253),
        (1e+300, 690.7755278982137),
        (2.2250738585072014e-308, -708.3964185322641),
    ];

    #[test]
    fn known_values_to_one_unit_in_the_last_place() {
        for (x, expected) in KNOWN {
            assert!(
                units_apart(ln(x), expected) <= 1,
                "ln {x:e}: {:e} {expected:e}",
                ln(x)
            );
        }
    }

    #[test]
    fn one_is_exactly_zero_and_its_neighbours_are_exact() {
        assert_eq!(ln(1.0).to_bits(), 0.0_f64.to_bits());
        let above = 1.0 + f64::EPSILON;
        assert_eq!(ln(above), f64::EPSILON.next_down());
        assert_eq!(ln(1.0 - f64::EPSILON / 2.0), -f64::EPSILON / 2.0);
    }

    #[test]
    fn agrees_with_an_independent_logarithm_everywhere() {
        let mut x = f64::MIN_POSITIVE;
        let mut compared = 0;
        while x < f64::MAX / 1.01 {
            let units = units_apart(ln(x), libm::log(x));
            assert!(units <= 1, "ln {x:e} is {units} units away");
            x *= 1.001_234_5;
            compared += 1;
        }
        assert!(compared > 500_000);
        for i in 1..200_000_u32 {
            let x = 1.0 + f64::from(i) * 1e-6;
            assert!(units_apart(ln(x), libm::log(x)) <= 1, "ln {x:e}");
            let x = 1.0 - f64::from(i) * 1e-6;
            assert!(units_apart(ln(x), libm::log(x)) <= 1, "ln {x:e}");
        }
    }

    #[test]
    fn neighbouring_arguments_never_fall_by_more_than_the_error() {
        for start in [0.5_f64, 0.707, 0.99, 1.0, 1.2, 1.414, 1.9] {
            let mut x = start;
            for _ in 0..20_000 {
                let next = x.next_up();
                let fall = ln(x) - ln(next);
                assert!(fall <= 2.0 * f64::EPSILON * ln(x).abs(), "falls at {x:e}");
                x = next;
            }
        }
    }

    #[test]
    fn arguments_outside_the_domain() {
        assert_eq!(ln_checked(0.0), f64::NEG_INFINITY);
        assert_eq!(ln_checked(-0.0), f64::NEG_INFINITY);
        assert!(ln_checked(-1.0).is_nan());
        assert!(ln_checked(f64::NEG_INFINITY).is_nan());
        assert!(ln_checked(f64::NAN).is_nan());
        assert_eq!(ln_checked(f64::INFINITY), f64::INFINITY);
        assert!(units_apart(ln_checked(5e-324), -744.440_071_921_381_3) <= 1);
        assert_eq!(ln_checked(3.0), ln(3.0));
    }
}
