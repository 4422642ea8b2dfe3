//! The posterior win probability of a context, with its credible interval.
//!
//! After w wins and l losses the uniform prior becomes the distribution Beta(1 + w, 1 + l). Nothing
//! here uses the platform's mathematics library, so that a recommendation reads the same anywhere.

use crate::log::ln;

/// What is known of a win probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Posterior mean, `(1 + w) / (2 + w + l)`.
    pub mean: f64,
    /// 5 % quantile.
    pub low: f64,
    /// 95 % quantile.
    pub high: f64,
}

/// Upper 5 % point of the standard normal distribution.
const NORMAL_95: f64 = 1.644_853_626_951_472_2;

/// Returns the posterior Beta(1 + wins, 1 + losses): its mean and the ends of its equal-tailed
/// 90 % credible interval, to 1e-10 for counts up to a million.
///
/// # Examples
/// ```
/// # use clustercore_core::beta::posterior;
/// let nothing_known = posterior(0, 0);
/// assert_eq!(nothing_known.mean, 0.5);
/// assert!((nothing_known.low - 0.05).abs() < 1e-12);
/// assert!((nothing_known.high - 0.95).abs() < 1e-12);
/// ```
#[must_use]
pub fn posterior(wins: u64, losses: u64) -> Posterior {
    let beta = Beta::new(1.0 + wins as f64, 1.0 + losses as f64);
    Posterior {
        mean: beta.a / (beta.a + beta.b),
        low: beta.quantile(0.05, NORMAL_95),
        high: beta.quantile(0.95, -NORMAL_95),
    }
}

/// A beta distribution with both parameters at least one.
struct Beta {
    a: f64,
    b: f64,
    /// Logarithm of the beta function.
    log_beta: f64,
}

impl Beta {
    fn new(a: f64, b: f64) -> Self {
        let log_beta = libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
        Self { a, b, log_beta }
    }

    fn density(&self, x: f64) -> f64 {
        libm::exp((self.a - 1.0) * ln(x) + (self.b - 1.0) * ln(1.0 - x) - self.log_beta)
    }

    /// Returns the probability of a value up to x, the regularised incomplete beta function.
    fn below(&self, x: f64) -> f64 {
        let factor = libm::exp(self.a * ln(x) + self.b * ln(1.0 - x) - self.log_beta);
        // The fraction converges fast below the mean; above it stands that of the other side.
        if x <= (self.a + 1.0) / (self.a + self.b + 2.0) {
            factor / self.a * continued_fraction(self.a, self.b, x)
        } else {
            1.0 - factor / self.b * continued_fraction(self.b, self.a, 1.0 - x)
        }
    }

    /// Returns the value below which lies `probability`, of which `normal` is the upper normal
    /// point: Halley's method from the approximation 26.5.22 of Abramowitz and Stegun, "Handbook
    /// of Mathematical Functions", kept in a bracket that every step narrows.
    fn quantile(&self, probability: f64, normal: f64) -> f64 {
        let (a, b) = (self.a, self.b);
        let spread = (a * b / (a + b + 1.0)).sqrt() / (a + b);
        let (mut low, mut high) = (0.0, 1.0);
        let mut x = first_guess(a, b, normal);
        for _ in 0..100 {
            let excess = self.below(x) - probability;
            if excess > 0.0 {
                high = x;
            } else {
                low = x;
            }
            let newton = excess / self.density(x);
            let bend = newton * ((a - 1.0) / x - (b - 1.0) / (1.0 - x));
            let halley = x - newton / (1.0 - 0.5 * bend.clamp(-1.0, 1.0));
            // The ends count: at the solution the step is nothing.
            let next = if halley >= low && halley <= high {
                halley
            } else {
                0.5 * (low + high)
            };
            let step = (next - x).abs();
            x = next;
            // The error falls as the cube of the step: one in 1e5 leaves one in 1e15.
            if step <= 1e-5 * spread.min(x).min(1.0 - x) {
                break;
            }
        }
        x
    }
}

fn first_guess(a: f64, b: f64, normal: f64) -> f64 {
    let (from_a, from_b) = (1.0 / (2.0 * a - 1.0), 1.0 / (2.0 * b - 1.0));
    let h = 2.0 / (from_a + from_b);
    let lambda = (normal * normal - 3.0) / 6.0;
    let w = normal * (h + lambda).sqrt() / h
        - (from_b - from_a) * (lambda + 5.0 / 6.0 - 2.0 / (3.0 * h));
    let guess = a / (a + b * libm::exp(2.0 * w));
    guess.clamp(1e-12, 1.0 - 1e-12)
}

/// Returns the continued fraction of the incomplete beta function, `1 / (1 + d1 / (1 + d2 / ...))`
/// with the d of the NIST Digital Library of Mathematical Functions, 8.17.22, by the modified
/// method of Lentz (Thompson and Barnett, Journal of Computational Physics 64, 1986).
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut above = 1.0;
    let mut below = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = below;
    let mut m = 1.0;
    while m < 100_000.0 {
        let twice = a + 2.0 * m;
        let even = m * (b - m) * x / ((twice - 1.0) * twice);
        below = 1.0 / away_from_zero(1.0 + even * below);
        above = away_from_zero(1.0 + even / above);
        value *= below * above;
        let odd = -(a + m) * (a + b + m) * x / (twice * (twice + 1.0));
        below = 1.0 / away_from_zero(1.0 + odd * below);
        above = away_from_zero(1.0 + odd / above);
        let change = below * above;
        value *= change;
        if (change - 1.0).abs() <= 2.0 * f64::EPSILON {
            break;
        }
        m += 1.0;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12, "{found} {expected}");
    }

    #[test]
    fn mean_by_hand() {
        assert_eq!(posterior(0, 0).mean, 0.5);
        assert_eq!(posterior(3, 1).mean, 4.0 / 6.0);
    }

    /// Where one parameter is 1 the distribution function is a power.
    #[test]
    fn only_losses_and_only_wins_have_closed_forms() {
        for n in [1_u32, 2, 5, 17, 100] {
            let power = 1.0 / f64::from(n + 1);
            let losses = posterior(0, u64::from(n));
            near(losses.low, 1.0 - libm::pow(0.95, power));
            near(losses.high, 1.0 - libm::pow(0.05, power));
            let wins = posterior(u64::from(n), 0);
            near(wins.low, libm::pow(0.05, power));
            near(wins.high, libm::pow(0.95, power));
        }
    }

    /// Beta(2, 2): the distribution function is 3 x^2 - 2 x^3.
    #[test]
    fn one_win_and_one_loss_by_hand() {
        let found = posterior(1, 1);
        near(found.low * found.low * (3.0 - 2.0 * found.low), 0.05);
        near(found.high * found.high * (3.0 - 2.0 * found.high), 0.95);
    }

    /// Quantiles from an independent library, SciPy 1.17.1.
    #[test]
    fn quantiles_agree_with_an_independent_library() {
        for (wins, losses, low, high) in KNOWN {
            let found = posterior(wins, losses);
            assert!(
                (found.low - low).abs() <= 1e-11,
                "{wins} {losses} low {} {low}",
                found.low
            );
            assert!(
                (found.high - high).abs() <= 1e-11,
                "{wins} {losses} high {} {high}",
                found.high
            );
        }
    }

    #[test]
    fn mirrored_counts_mirror_the_interval() {
        for (wins, losses) in [(0, 7), (3, 9), (40, 41), (1_000, 3)] {
            let (one, other) = (posterior(wins, losses), posterior(losses, wins));
            near(one.low, 1.0 - other.high);
            near(one.high, 1.0 - other.low);
        }
    }

    const KNOWN: [(u64, u64, f64, f64); 10] = [
        (0, 1, 0.02532056551910361, 0.776393202250021),
        (5, 3, 0.34494136594370317, 0.8312495040126759),
        (12, 30, 0.18900882145510087, 0.41258734288458754),
        (100, 90, 0.4667463031587186, 0.5850277284872243),
        (1, 500, 0.0007083466276006852, 0.009414764081209616),
        (1234, 4321, 0.21312645210152073, 0.23147165617519702),
        (50000, 10, 0.999660853841155, 0.9998766422668706),
        (500000, 500000, 0.49917757435962007, 0.5008224256403799),
        (1000000, 3, 0.9999922463929155, 0.9999986336859524),
        (999999, 300000, 0.7686221249970246, 0.7698377590759604),
    ];
}
