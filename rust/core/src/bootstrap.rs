//! The bootstrap: how far a statistic could lie from what was found, by drawing the past again.
//!
//! Everything is drawn from a seed, with integer arithmetic and portable logarithms, so that the
//! same seed gives the same intervals on every platform. Nothing here is part of the engine.

use crate::log::ln;

/// Trade dates in a year.
pub const DAYS_PER_YEAR: f64 = 252.0;

/// A generator of random bits: xoshiro256++ (D. Blackman, S. Vigna, "Scrambled linear
/// pseudorandom number generators", ACM TOMS 47, 2021), its state filled by SplitMix64 (G. L.
/// Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Generator {
    state: [u64; 4],
}

impl Generator {
    /// Returns the generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        let mut next = || {
            counter = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut bits = counter;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bits ^ (bits >> 31)
        };
        Self {
            state: [next(), next(), next(), next()],
        }
    }

    /// Returns the next 64 random bits.
    #[inline(always)]
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Returns a number below `bound`, every one equally likely; zero when the bound is zero.
    ///
    /// Method: D. Lemire, "Fast random integer generation in an interval", ACM TOMACS 29, 2019.
    #[inline(always)]
    pub fn below(&mut self, bound: u32) -> u32 {
        loop {
            if let Some(number) = fold(self.bits() >> 32, bound) {
                return number;
            }
        }
    }
}

/// Folds 32 random bits into a number below `bound`, or nothing when these bits would favour some.
#[inline(always)]
fn fold(bits: u64, bound: u32) -> Option<u32> {
    let product = bits.wrapping_mul(u64::from(bound));
    let low = product as u32;
    // Only a low part below the bound can be one of the 2^32 mod bound surplus ones.
    if low < bound && low < bound.wrapping_neg() % bound {
        return None;
    }
    Some((product >> 32) as u32)
}

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// Seed of the generator.
    pub seed: u64,
    /// Samples drawn.
    pub resamples: usize,
    /// Mean length of a block of days.
    pub block_days: u32,
}

/// The ends of a 95 % percentile interval: the 2.5 % and 97.5 % quantiles of what was drawn, each
/// interpolated linearly between its neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Returns the percentile interval of what was drawn, or nothing when an end is not finite.
fn interval(drawn: &mut [f64]) -> Option<Interval> {
    if drawn.is_empty() || drawn.iter().any(|value| value.is_nan()) {
        return None;
    }
    drawn.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = share * (drawn.len() - 1) as f64;
        let before = place.floor();
        let value = drawn[before as usize];
        let next = drawn[(before as usize + 1).min(drawn.len() - 1)];
        if place == before {
            value
        } else {
            value + (place - before) * (next - value)
        }
    };
    let found = Interval {
        low: quantile(0.025),
        high: quantile(0.975),
    };
    (found.low.is_finite() && found.high.is_finite()).then_some(found)
}

/// Ratios of daily returns. A ratio that has no divisor is infinite with the sign of its dividend,
/// and NaN when that is zero too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// `mean / sd * sqrt(252)`, sd with divisor n - 1.
    pub sharpe: f64,
    /// `mean / sqrt(mean(min(r, 0)^2)) * sqrt(252)`.
    pub sortino: f64,
    /// `((1 + r_1) ... (1 + r_n))^(252 / n) - 1` over the largest fall from a peak of that product.
    pub calmar: f64,
}

/// Intervals of [`Ratios`], each where it is bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioIntervals {
    /// Of the Sharpe ratio.
    pub sharpe: Option<Interval>,
    /// Of the Sortino ratio.
    pub sortino: Option<Interval>,
    /// Of the Calmar ratio.
    pub calmar: Option<Interval>,
}

/// Daily returns, prepared for drawing.
struct Days {
    mean: f64,
    days: Vec<Day>,
}

#[derive(Clone, Copy)]
struct Day {
    /// Return less the mean of all, which keeps the sum of squares exact.
    distance: f64,
    /// Square of the return where it is negative.
    downside: f64,
    /// ln(1 + return).
    growth: f64,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    distance: f64,
    squares: f64,
    downside: f64,
    growth: f64,
    peak: f64,
    fall: f64,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, day: Day) {
        self.distance += day.distance;
        self.squares += day.distance * day.distance;
        self.downside += day.downside;
        self.growth += day.growth;
        self.peak = if self.growth > self.peak {
            self.growth
        } else {
            self.peak
        };
        let fall = self.peak - self.growth;
        self.fall = if fall > self.fall { fall } else { self.fall };
    }

    fn ratios(&self, mean_of_all: f64, days: f64) -> Ratios {
        let off = self.distance / days;
        let mean = mean_of_all + off;
        let variance = (self.squares - self.distance * off) / (days - 1.0);
        let deviation = if variance > 0.0 { variance.sqrt() } else { 0.0 };
        // What rounding leaves of equal returns is no deviation.
        let deviation = if deviation <= 1e-12 * mean.abs() {
            0.0
        } else {
            deviation
        };
        let downside = (self.downside / days).sqrt();
        let year = DAYS_PER_YEAR.sqrt();
        let growth = libm::expm1(self.growth * (DAYS_PER_YEAR / days));
        Ratios {
            sharpe: mean / deviation * year,
            sortino: mean / downside * year,
            calmar: growth / -libm::expm1(-self.fall),
        }
    }
}

impl Days {
    fn new(returns: &[f64]) -> Option<Self> {
        let usable = |value: &f64| *value > -1.0 && value.is_finite();
        if returns.len() < 2 || returns.len() >= i32::MAX as usize || !returns.iter().all(usable) {
            return None;
        }
        let mean = returns.iter().fold(0.0, |sum, value| sum + value) / returns.len() as f64;
        let days = returns.iter().map(|value| Day {
            distance: value - mean,
            downside: if *value < 0.0 { value * value } else { 0.0 },
            growth: ln(1.0 + value),
        });
        Some(Self {
            mean,
            days: days.collect(),
        })
    }

    fn ratios(&self) -> Ratios {
        let mut sums = Sums::default();
        self.days.iter().for_each(|day| sums.add(*day));
        sums.ratios(self.mean, self.days.len() as f64)
    }
}

/// Returns the ratios of daily returns, or nothing when there are fewer than two or one of them is
/// -1 or below.
///
/// # Examples
/// ```
/// # use clustercore_core::bootstrap::ratios;
/// let found = ratios(&[0.01, -0.01, 0.02, 0.0]).unwrap();
/// // mean 0.005, sd sqrt(0.0005 / 3), downside sqrt(0.0001 / 4) = 0.005
/// assert!((found.sortino - 252.0_f64.sqrt()).abs() < 1e-12);
/// ```
#[must_use]
pub fn ratios(returns: &[f64]) -> Option<Ratios> {
    Days::new(returns).map(|days| days.ratios())
}

/// Returns the 95 % intervals of the ratios of daily returns by the stationary block bootstrap, or
/// nothing where [`ratios`] gives nothing.
///
/// A sample is as long as the original. It is made of blocks that start on any day with equal
/// chance, have a geometric length with mean `block_days`, and wrap round the end, so that what
/// one day owes to the days before it is kept. Source: D. N. Politis, J. P. Romano, "The stationary
/// bootstrap", Journal of the American Statistical Association 89, 1994.
#[must_use]
pub fn ratio_intervals(returns: &[f64], draws: Draws) -> Option<RatioIntervals> {
    let days = Days::new(returns)?;
    let count = days.days.len();
    let bound = u32::try_from(count).ok()?;
    let mut generator = Generator::new(draws.seed);
    let ends = block_ends(draws.block_days);
    let mut drawn: [Vec<f64>; 3] = [const { Vec::new() }; 3];
    for _ in 0..draws.resamples {
        let mut sums = Sums::default();
        let mut place = generator.below(bound);
        for _ in 0..count {
            sums.add(days.days[place as usize]);
            place = next_place(place, bound, ends, &mut generator);
        }
        let found = sums.ratios(days.mean, count as f64);
        drawn[0].push(found.sharpe);
        drawn[1].push(found.sortino);
        drawn[2].push(found.calmar);
    }
    let [sharpe, sortino, calmar] = &mut drawn;
    Some(RatioIntervals {
        sharpe: interval(sharpe),
        sortino: interval(sortino),
        calmar: interval(calmar),
    })
}

/// Returns the chance that a block ends with a day, in 2^-32.
fn block_ends(block_days: u32) -> u64 {
    (1 << 32) / u64::from(block_days.max(1))
}

/// Returns the day after `place` in a sample: the next one, wrapping round, or any when the block
/// ends. Both are found from 64 bits without a branch that could be guessed wrong.
#[inline(always)]
fn next_place(place: u32, bound: u32, ends: u64, generator: &mut Generator) -> u32 {
    let bits = generator.bits();
    let anywhere = match fold(bits >> 32, bound) {
        Some(place) => place,
        None => generator.below(bound),
    };
    let following = if place + 1 == bound { 0 } else { place + 1 };
    if bits & 0xFFFF_FFFF < ends {
        anywhere
    } else {
        following
    }
}

/// The mean of trades, held against zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanTest {
    /// Mean of the trades.
    pub mean: f64,
    /// 95 % percentile interval of the mean.
    pub interval: Interval,
    /// Two-sided p-value: how often a mean at least as far from zero comes up when the true mean is
    /// zero.
    pub p_value: f64,
}

/// Tests the mean of trades against zero by drawing whole groups of trades with replacement.
///
/// `sums` and `counts` hold the total and the number of the trades of each group. Trades of one
/// session share its market, so the session is the group and only sessions count as independent;
/// groups of one trade each give the ordinary bootstrap. A drawn mean m* less the mean m is what
/// the mean does when the trades are shifted to a true mean of zero, so the two-sided p-value is
/// `(1 + #(|m* - m| >= |m|)) / (1 + resamples)`. Source: P. Hall, S. R. Wilson, "Two guidelines
/// for bootstrap hypothesis testing", Biometrics 47, 1991; A. C. Davison, D. V. Hinkley, "Bootstrap
/// Methods and their Application", 1997, section 4.4.
///
/// Returns nothing below two groups, for groups of different number than counts, or for a group
/// without a trade.
#[must_use]
pub fn mean_test(sums: &[f64], counts: &[u32], draws: Draws) -> Option<MeanTest> {
    let bound = u32::try_from(sums.len()).ok()?;
    if bound < 2 || sums.len() != counts.len() || counts.contains(&0) || draws.resamples == 0 {
        return None;
    }
    let groups: Vec<(f64, f64)> = sums
        .iter()
        .zip(counts)
        .map(|(sum, count)| (*sum, f64::from(*count)))
        .collect();
    let (total, trades) = groups.iter().fold((0.0, 0.0), |(total, trades), group| {
        (total + group.0, trades + group.1)
    });
    let mean = total / trades;
    let mut generator = Generator::new(draws.seed);
    let mut drawn: Vec<f64> = (0..draws.resamples)
        .map(|_| drawn_mean(&groups, bound, &mut generator))
        .collect();
    // Summing in another order moves the last bits, which must not decide a tie.
    let reach = mean.abs() * (1.0 - 1e-12);
    let as_far = drawn
        .iter()
        .filter(|value| (**value - mean).abs() >= reach)
        .count();
    let p_value = (1 + as_far) as f64 / (1 + drawn.len()) as f64;
    Some(MeanTest {
        mean,
        interval: interval(&mut drawn)?,
        p_value,
    })
}

/// Returns the mean of as many groups as there are, drawn two at a time from 64 random bits.
fn drawn_mean(groups: &[(f64, f64)], bound: u32, generator: &mut Generator) -> f64 {
    let mut sums = [(0.0, 0.0); 2];
    let mut left = bound;
    while left >= 2 {
        let bits = generator.bits();
        for (sum, half) in sums.iter_mut().zip([bits >> 32, bits & 0xFFFF_FFFF]) {
            let group = match fold(half, bound) {
                Some(index) => groups[index as usize],
                None => groups[generator.below(bound) as usize],
            };
            sum.0 += group.0;
            sum.1 += group.1;
        }
        left -= 2;
    }
    if left == 1 {
        let group = groups[generator.below(bound) as usize];
        sums[0].0 += group.0;
        sums[0].1 += group.1;
    }
    (sums[0].0 + sums[1].0) / (sums[0].1 + sums[1].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: Draws = Draws {
        seed: 1,
        resamples: 2_000,
        block_days: 10,
    };

    /// The first numbers of SplitMix64 from seed 1234567, as published with the generator, and of
    /// xoshiro256++ from the state 1, 2, 3, 4, as in its reference code.
    #[test]
    fn generators_give_their_published_numbers() {
        let seeded = Generator::new(1_234_567);
        assert_eq!(seeded.state[0], 6_457_827_717_110_365_317);
        assert_eq!(seeded.state[1], 3_203_168_211_198_807_973);
        let mut generator = Generator {
            state: [1, 2, 3, 4],
        };
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
        ];
        for number in expected {
            assert_eq!(generator.bits(), number);
        }
    }

    #[test]
    fn bounded_draws_are_even() {
        let mut generator = Generator::new(3);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[generator.below(7) as usize] += 1;
        }
        // Chi-squared with six degrees of freedom: above 22.5 once in a thousand.
        let far: f64 = counts
            .iter()
            .map(|n| (f64::from(*n) - 1e4) * (f64::from(*n) - 1e4) / 1e4)
            .sum();
        assert!(far < 22.5, "{counts:?}");
        // 2^32 mod (3 * 2^30) = 2^30: a quarter of all bits is surplus and must go.
        let kept = (0..1_u64 << 16)
            .filter(|bits| fold(*bits, 3 << 30).is_some())
            .count();
        assert_eq!(kept, 3 << 14);
    }

    #[test]
    fn blocks_have_their_mean_length_and_wrap_round() {
        let mut generator = Generator::new(5);
        let (mut place, mut ended, mut wrapped) = (0, 0, 0);
        for _ in 0..100_000 {
            let next = next_place(place, 1_000, block_ends(10), &mut generator);
            ended += u32::from(next != (place + 1) % 1_000);
            wrapped += u32::from(place == 999 && next == 0);
            place = next;
        }
        assert!((9_700..10_300).contains(&ended), "{ended}");
        assert!(wrapped > 50);
        let mut jumps = 0;
        for _ in 0..1_000 {
            let next = next_place(place, 1_000_000, block_ends(1), &mut generator);
            jumps += u32::from(next != place + 1);
            place = next;
        }
        assert_eq!(jumps, 1_000);
    }

    #[test]
    fn quantiles_by_hand() {
        let mut drawn: Vec<f64> = (0..=40).rev().map(f64::from).collect();
        assert_eq!(
            interval(&mut drawn),
            Some(Interval {
                low: 1.0,
                high: 39.0
            })
        );
        let mut drawn = [3.0, 1.0];
        let found = interval(&mut drawn).unwrap();
        assert!((found.low - 1.05).abs() < 1e-12 && (found.high - 2.95).abs() < 1e-12);
        assert_eq!(interval(&mut [1.0, f64::INFINITY]), None);
        assert_eq!(interval(&mut []), None);
    }

    #[test]
    fn ratios_by_hand() {
        let found = ratios(&[0.01, -0.02, 0.03, 0.0]).unwrap();
        // Mean 0.005; squares around it 25, 625, 625, 25 millionths: sd = sqrt(0.0013 / 3).
        let year = 252.0_f64.sqrt();
        assert!((found.sharpe - 0.005 / (0.0013_f64 / 3.0).sqrt() * year).abs() < 1e-12);
        assert!((found.sortino - 0.005 / 0.01 * year).abs() < 1e-12);
        let growth = libm::pow(1.01 * 0.98 * 1.03, 63.0) - 1.0;
        assert!((found.calmar - growth / 0.02).abs() < 1e-9);
        assert_eq!(ratios(&[0.01]), None);
        assert_eq!(ratios(&[0.01, -1.0]), None);
        let steady = ratios(&[0.1, 0.1, 0.1]).unwrap();
        assert_eq!(steady.sharpe, f64::INFINITY);
        assert_eq!(steady.sortino, f64::INFINITY);
        assert_eq!(steady.calmar, f64::INFINITY);
        // Equal but for the rounding of equity.
        let rounded = ratios(&[0.003, 0.003_f64.next_up(), 0.003]).unwrap();
        assert_eq!(rounded.sharpe, f64::INFINITY);
        assert!(ratios(&[0.0, 0.0]).unwrap().sharpe.is_nan());
    }

    /// Days that are nearly normal, with standard deviation 0.01 and a mean of exactly `drift`
    /// but for rounding.
    fn noise(days: usize, drift: f64) -> Vec<f64> {
        let mut generator = Generator::new(99);
        let mut unit = || (generator.bits() >> 11) as f64 / 9_007_199_254_740_992.0;
        let values: Vec<f64> = (0..days)
            .map(|_| 0.01 * ((0..12).map(|_| unit()).sum::<f64>() - 6.0))
            .collect();
        let mean = values.iter().sum::<f64>() / days as f64;
        values.iter().map(|value| value - mean + drift).collect()
    }

    #[test]
    fn the_interval_of_independent_days_is_as_wide_as_theory_says() {
        let days = noise(1_260, 0.0);
        let sharpe = ratio_intervals(&days, DRAWS).unwrap().sharpe.unwrap();
        // Standard error of a yearly Sharpe ratio near zero over five years: sqrt(1 / 5) = 0.447.
        let width = (sharpe.high - sharpe.low) / (2.0 * 1.96);
        assert!((0.38..0.52).contains(&width), "{width}");
        let point = ratios(&days).unwrap().sharpe;
        assert!(sharpe.low < point && point < sharpe.high);
        assert_eq!(ratio_intervals(&days, DRAWS), ratio_intervals(&days, DRAWS));
        let other = ratio_intervals(&days, Draws { seed: 2, ..DRAWS }).unwrap();
        assert_ne!(other.sharpe, Some(sharpe));
    }

    #[test]
    fn blocks_widen_the_interval_of_days_that_go_together() {
        let days: Vec<f64> = noise(130, 0.0)
            .into_iter()
            .flat_map(|day| [day; 10])
            .collect();
        let width = |block_days| {
            let found = ratio_intervals(
                &days,
                Draws {
                    block_days,
                    ..DRAWS
                },
            )
            .unwrap();
            found.sharpe.map(|ends| ends.high - ends.low).unwrap()
        };
        assert!(width(40) > 2.0 * width(1));
    }

    #[test]
    fn no_interval_where_no_divisor_is_sure() {
        let winning: Vec<f64> = (0..50).map(|i| 0.001 * f64::from(i % 3)).collect();
        let found = ratio_intervals(&winning, DRAWS).unwrap();
        assert!(found.sharpe.is_some());
        assert_eq!(found.sortino, None);
        assert_eq!(found.calmar, None);
    }

    #[test]
    fn the_mean_test_can_say_no_and_yes() {
        let ones = vec![1; 400];
        let luck = mean_test(&noise(400, 0.0002), &ones, DRAWS).unwrap();
        assert!(luck.p_value > 0.05 && luck.interval.low < 0.0 && luck.interval.high > 0.0);
        let skill = mean_test(&noise(400, 0.003), &ones, DRAWS).unwrap();
        assert!(skill.p_value < 0.01 && skill.interval.low > 0.0);
        // Standard error 0.01 / 20.
        let width = (skill.interval.high - skill.interval.low) / (2.0 * 1.96);
        assert!((width - 0.0005).abs() < 0.0001, "{width}");
    }

    #[test]
    fn trades_of_one_session_are_not_independent() {
        let trades = noise(400, 0.001);
        let alone = mean_test(&trades, &vec![1; 400], DRAWS).unwrap();
        // Ten equal trades for each: the same sessions, ten times the trades.
        let sums: Vec<f64> = trades.iter().map(|trade| trade * 10.0).collect();
        let together = mean_test(&sums, &vec![10; 400], DRAWS).unwrap();
        assert!((alone.mean - together.mean).abs() < 1e-15);
        assert_eq!(alone.p_value, together.p_value);
    }

    /// Two groups, -1 and 3, with mean 1: drawn means are -1, 1, 1, 3 with equal chance, of which
    /// two lie at least 1 from the mean.
    #[test]
    fn p_value_by_hand() {
        let found = mean_test(
            &[-1.0, 3.0],
            &[1, 1],
            Draws {
                resamples: 40_000,
                ..DRAWS
            },
        )
        .unwrap();
        assert_eq!(found.mean, 1.0);
        assert!((found.p_value - 0.5).abs() < 0.01, "{}", found.p_value);
        assert_eq!((found.interval.low, found.interval.high), (-1.0, 3.0));
        assert_eq!(mean_test(&[1.0], &[1], DRAWS), None);
        assert_eq!(mean_test(&[1.0, 2.0], &[1, 0], DRAWS), None);
    }
}
