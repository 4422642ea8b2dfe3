//! What is traded. Invariant: the tick is a positive whole number of 1e-9 points.

use crate::config::InstrumentSettings;
use crate::error::ConfigError;

/// Units of 1e-9 in a point.
pub const NANOS_PER_POINT: f64 = 1e9;

/// An instrument with a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Instrument {
    /// Root, such as `ES`.
    pub root: String,
    /// Smallest price step in 1e-9.
    pub tick_nanos: i64,
    /// USD per point of one contract.
    pub point_value: f64,
    /// USD per contract and side.
    pub commission: f64,
    /// USD that one contract ties up.
    pub margin: Option<f64>,
}

impl Instrument {
    /// Returns the instrument with what the configuration says differs from it.
    ///
    /// # Errors
    /// When a number is not finite or not positive, or the tick is not a whole number of 1e-9.
    pub fn with(mut self, settings: &InstrumentSettings) -> Result<Self, ConfigError> {
        if let Some(points) = settings.tick_size {
            let nanos = (points * NANOS_PER_POINT).round();
            if (nanos / NANOS_PER_POINT - points).abs() > 1e-15 * points.max(1.0) {
                return Err(refuse("instrument.tick_size", points, "a multiple of 1e-9"));
            }
            self.tick_nanos = nanos as i64;
        }
        self.point_value = settings.point_value.unwrap_or(self.point_value);
        self.commission = settings.commission.unwrap_or(self.commission);
        self.margin = settings.margin.or(self.margin);
        if !(1..=1_000_000_000_000_000).contains(&self.tick_nanos) {
            return Err(refuse(
                "instrument.tick_size",
                self.tick_nanos,
                "1e-9 to 1e6 points",
            ));
        }
        if !(self.point_value.is_finite() && self.point_value > 0.0) {
            return Err(refuse(
                "instrument.point_value",
                self.point_value,
                "above 0",
            ));
        }
        if !(self.commission.is_finite() && self.commission >= 0.0) {
            return Err(refuse(
                "instrument.commission",
                self.commission,
                "0 or more",
            ));
        }
        if self
            .margin
            .is_some_and(|margin| !(margin.is_finite() && margin >= 0.0))
        {
            return Err(refuse(
                "instrument.margin",
                self.margin.unwrap_or(0.0),
                "0 or more",
            ));
        }
        Ok(self)
    }
}

fn refuse(field: &str, found: impl ToString, expected: &str) -> ConfigError {
    ConfigError {
        field: field.to_owned(),
        problem: "not an allowed value".to_owned(),
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}

/// Tells multiples of one number without dividing, among numbers from -2^62 up.
///
/// For an odd divisor d, n is a multiple exactly when n times the inverse of d modulo 2^64 is at
/// most (2^64 - 1) / d; a power of two is taken out by rotation (Granlund and Montgomery, 1994,
/// "Division by invariant integers using multiplication", section 9).
#[derive(Clone, Copy, Debug)]
pub struct Divisor {
    inverse: u64,
    shift: u32,
    limit: u64,
    /// A multiple that makes every number of less than 62 bits positive.
    offset: u64,
}

impl Divisor {
    /// Returns the divisor of a positive number.
    #[must_use]
    pub fn new(divisor: i64) -> Self {
        let divisor = divisor.unsigned_abs().max(1);
        let shift = divisor.trailing_zeros();
        let odd = divisor >> shift;
        let mut inverse = odd;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Self {
            inverse,
            shift,
            limit: u64::MAX / divisor,
            offset: (1_u64 << 62).div_ceil(divisor) * divisor,
        }
    }

    /// Returns a number that is at most [`Self::limit`] exactly for multiples.
    #[inline]
    #[must_use]
    pub fn key(self, number: i64) -> u64 {
        (number as u64)
            .wrapping_add(self.offset)
            .wrapping_mul(self.inverse)
            .rotate_right(self.shift)
    }

    /// Returns the largest key of a multiple.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Returns whether the number is a multiple.
    #[must_use]
    pub fn divides(self, number: i64) -> bool {
        self.key(number) <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisor_agrees_with_remainder() {
        for divisor in [
            1,
            2,
            3,
            5,
            7,
            250_000_000,
            100_000_000,
            10_000_000,
            60_000_000_000,
        ] {
            let quick = Divisor::new(divisor);
            for number in -1000..1000 {
                for number in [number, number * divisor, number * divisor + 1] {
                    assert_eq!(
                        quick.divides(number),
                        number % divisor == 0,
                        "{number} {divisor}"
                    );
                }
            }
        }
    }
}
