//! Volatility from bars: each formula once, on the tape for the engine and rolling over columns.
//!
//! Two invariants. What the engine decides with is summed afresh, in bar order, from the bars
//! alone, so that an earlier start of the data changes no later value. And every sum is a plain
//! left fold of terms that do not depend on how many are computed at once, so that the width of
//! the processor's vectors changes no bit.

pub mod rolling;

use crate::bar::Bar;
use crate::config::Estimator;
use crate::log::ln;

/// 2 ln 2 - 1.
const GARMAN_KLASS_CLOSE: f64 = 2.0 * core::f64::consts::LN_2 - 1.0;
/// 4 ln 2.
const PARKINSON_RANGE: f64 = 4.0 * core::f64::consts::LN_2;
/// Expected range of a driftless walk in standard deviations, sqrt(8 / pi), as the engine uses it.
const EXPECTED_RANGE: f64 = 1.5958;
/// Bars whose terms are computed together.
const BLOCK: usize = 64;

/// Returns the Garman-Klass variance of one bar, `0.5 ln(H/L)^2 - (2 ln 2 - 1) ln(C/O)^2`.
///
/// Prices must be positive. On a coherent bar (low <= open, close <= high) it is not negative.
/// Source: M. B. Garman, M. J. Klass, "On the estimation of security price volatilities from
/// historical data", Journal of Business 53, 1980.
///
/// # Examples
/// ```
/// # use clustercore_core::volatility::garman_klass;
/// assert_eq!(garman_klass(100.0, 100.0, 100.0, 100.0), 0.0);
/// ```
#[inline(always)]
#[must_use]
pub fn garman_klass(open: f64, high: f64, low: f64, close: f64) -> f64 {
    let range = ln(high / low);
    let body = ln(close / open);
    0.5 * (range * range) - GARMAN_KLASS_CLOSE * (body * body)
}

/// Returns the Parkinson variance of one bar, `ln(H/L)^2 / (4 ln 2)`.
///
/// Source: M. Parkinson, "The extreme value method for estimating the variance of the rate of
/// return", Journal of Business 53, 1980.
#[inline(always)]
#[must_use]
pub fn parkinson(high: f64, low: f64) -> f64 {
    let range = ln(high / low);
    range * range / PARKINSON_RANGE
}

/// Returns the Rogers-Satchell variance of one bar,
/// `ln(H/C) ln(H/O) + ln(L/C) ln(L/O)`, which a drift does not disturb.
///
/// Source: L. C. G. Rogers, S. E. Satchell, "Estimating variance from high, low and closing
/// prices", Annals of Applied Probability 1, 1991.
#[inline(always)]
#[must_use]
pub fn rogers_satchell(open: f64, high: f64, low: f64, close: f64) -> f64 {
    ln(high / close) * ln(high / open) + ln(low / close) * ln(low / open)
}

/// Returns the weight k of the open-to-close variance in Yang-Zhang over `bars` bars,
/// `0.34 / (1.34 + (n + 1) / (n - 1))`.
///
/// Source: D. Yang, Q. Zhang, "Drift-independent volatility estimation based on high, low, open,
/// and close prices", Journal of Business 73, 2000.
#[inline]
#[must_use]
pub fn yang_zhang_weight(bars: f64) -> f64 {
    0.34 / (1.34 + (bars + 1.0) / (bars - 1.0))
}

/// Returns the mean variance per bar of `tape[from..]`, or nothing when it is not defined.
///
/// It is summed afresh in bar order. A return into a bar looks at the bar before it, which may be
/// `tape[from - 1]`, only where the bar [follows](Bar::follows) it. Not defined: no bar, a price
/// of zero or below, or fewer than two returns for the estimators that take a variance of returns
/// (divisor n - 1).
///
/// [`Estimator::CloseToClose`] is the variance of `ln(C_i / C_{i-1})`. [`Estimator::YangZhang`] is
/// `var(ln(O_i / C_{i-1})) + k var(ln(C_i / O_i)) + (1 - k) * mean Rogers-Satchell`, with k of
/// [`yang_zhang_weight`] over all bars.
#[must_use]
pub fn variance_per_bar(estimator: Estimator, tape: &[Bar], from: usize) -> Option<f64> {
    let bars = tape.get(from..)?;
    if bars.is_empty() || bars.iter().any(|bar| bar.low <= 0) {
        return None;
    }
    match estimator {
        Estimator::GarmanKlass => Some(mean_of_terms(bars, garman_klass)),
        Estimator::Parkinson => Some(mean_of_terms(bars, |_, high, low, _| parkinson(high, low))),
        Estimator::RogersSatchell => Some(mean_of_terms(bars, rogers_satchell)),
        Estimator::CloseToClose => variance(&returns_into(tape, from, |before, bar| {
            (before.close, bar.close)
        })?),
        Estimator::YangZhang => {
            let overnight = variance(&returns_into(tape, from, |before, bar| {
                (before.close, bar.open)
            })?)?;
            let inside: Vec<f64> = bars
                .iter()
                .map(|bar| ln(bar.close as f64 / bar.open as f64))
                .collect();
            let k = yang_zhang_weight(bars.len() as f64);
            let drift_free = mean_of_terms(bars, rogers_satchell);
            Some(overnight + k * variance(&inside)? + (1.0 - k) * drift_free)
        }
    }
}

/// Returns the mean over bars of a term of open, high, low and close, summed in bar order.
#[inline(always)]
fn mean_of_terms(bars: &[Bar], term: impl Fn(f64, f64, f64, f64) -> f64) -> f64 {
    let mut sum = 0.0;
    for_each_block(bars, term, |terms| {
        for value in terms {
            sum += value;
        }
    });
    sum / bars.len() as f64
}

/// Computes a term of every bar and hands the terms on, block by block and in bar order. The terms
/// of a block are computed in a loop that the compiler turns into vector code.
#[inline(always)]
fn for_each_block(
    bars: &[Bar],
    term: impl Fn(f64, f64, f64, f64) -> f64,
    mut take: impl FnMut(&[f64]),
) {
    // What a short last block leaves over holds ones, whose logarithms are in the domain.
    let [mut open, mut high, mut low, mut close] = [[1.0_f64; BLOCK]; 4];
    let mut terms = [0.0; BLOCK];
    for block in bars.chunks(BLOCK) {
        for (i, bar) in block.iter().enumerate() {
            open[i] = bar.open as f64;
            high[i] = bar.high as f64;
            low[i] = bar.low as f64;
            close[i] = bar.close as f64;
        }
        for i in 0..BLOCK {
            terms[i] = term(open[i], high[i], low[i], close[i]);
        }
        take(&terms[..block.len()]);
    }
}

/// The variance per bar of a tape that grows, for an estimator that is asked again and again.
///
/// The term of a bar depends on that bar alone, so it is computed once and kept; the sum over the
/// window is still taken afresh, in bar order, and has the bits of [`variance_per_bar`].
#[derive(Clone, Debug)]
pub struct Terms {
    estimator: Estimator,
    /// Index on the tape of the bar of the first term.
    first: usize,
    terms: Vec<f64>,
}

impl Terms {
    /// Returns the memory of an estimator, empty.
    #[must_use]
    pub fn new(estimator: Estimator) -> Self {
        Self {
            estimator,
            first: 0,
            terms: Vec::new(),
        }
    }

    /// Returns what [`variance_per_bar`] returns for the same tape.
    ///
    /// The bars seen before must be on it unchanged; [`Self::forget`] says when the oldest leave.
    pub fn variance_per_bar(&mut self, tape: &[Bar], from: usize) -> Option<f64> {
        if matches!(
            self.estimator,
            Estimator::CloseToClose | Estimator::YangZhang
        ) {
            return variance_per_bar(self.estimator, tape, from);
        }
        let bars = tape.len().checked_sub(from).filter(|bars| *bars > 0)?;
        if from < self.first || from > self.first + self.terms.len() {
            self.first = from;
            self.terms.clear();
        }
        self.extend(&tape[self.first + self.terms.len()..]);
        let sum = self.terms[from - self.first..]
            .iter()
            .fold(0.0, |sum, term| sum + term);
        // A bar without a positive price has NaN for its term.
        (!sum.is_nan()).then(|| sum / bars as f64)
    }

    /// Follows a tape whose `gone` oldest bars have left it.
    pub fn forget(&mut self, gone: usize) {
        let terms = gone.saturating_sub(self.first).min(self.terms.len());
        self.terms.drain(..terms);
        self.first = self.first.saturating_sub(gone);
    }

    fn extend(&mut self, bars: &[Bar]) {
        let take = |terms: &[f64]| self.terms.extend_from_slice(terms);
        match self.estimator {
            Estimator::GarmanKlass => for_each_block(bars, positive(garman_klass), take),
            Estimator::Parkinson => {
                for_each_block(bars, positive(|_, high, low, _| parkinson(high, low)), take);
            }
            Estimator::RogersSatchell => for_each_block(bars, positive(rogers_satchell), take),
            Estimator::CloseToClose | Estimator::YangZhang => {}
        }
    }
}

/// Returns the term with NaN in place of a value that comes from a price of zero or below.
#[inline(always)]
fn positive(term: impl Fn(f64, f64, f64, f64) -> f64) -> impl Fn(f64, f64, f64, f64) -> f64 {
    move |open, high, low, close| {
        let value = term(open, high, low, close);
        if low > 0.0 { value } else { f64::NAN }
    }
}

/// Collects the log returns into the bars of `tape[from..]` that follow their predecessor, or
/// nothing when a predecessor has no positive price.
fn returns_into(
    tape: &[Bar],
    from: usize,
    prices: impl Fn(&Bar, &Bar) -> (i64, i64),
) -> Option<Vec<f64>> {
    let mut returns = Vec::with_capacity(tape.len() - from);
    for i in from.max(1)..tape.len() {
        if tape[i].follows {
            let (before, after) = prices(&tape[i - 1], &tape[i]);
            if before <= 0 {
                return None;
            }
            returns.push(ln(after as f64 / before as f64));
        }
    }
    Some(returns)
}

/// Returns the variance with divisor n - 1, from the mean and then the squares around it.
fn variance(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().fold(0.0, |sum, value| sum + value) / values.len() as f64;
    let squares = values
        .iter()
        .fold(0.0, |sum, value| sum + (value - mean) * (value - mean));
    Some(squares / (values.len() - 1) as f64)
}

/// Returns the true range of bar `i`, in the unit of its prices: the range of the bar, extended to
/// the close before it where it [follows](Bar::follows) that bar.
///
/// Source: J. W. Wilder, "New Concepts in Technical Trading Systems", 1978.
///
/// # Panics
/// When `i` is not on the tape.
#[inline]
#[must_use]
pub fn true_range(tape: &[Bar], i: usize) -> i64 {
    let bar = &tape[i];
    let (mut high, mut low) = (bar.high, bar.low);
    if bar.follows && i > 0 {
        high = high.max(tape[i - 1].close);
        low = low.min(tape[i - 1].close);
    }
    high.saturating_sub(low)
}

/// Returns the mean true range of `tape[from..]` in the unit of its prices, or nothing when there
/// is no bar. The sum is of integers, so only the one division rounds.
#[must_use]
pub fn mean_true_range(tape: &[Bar], from: usize) -> Option<f64> {
    if from >= tape.len() {
        return None;
    }
    let sum: i128 = (from..tape.len())
        .map(|i| i128::from(true_range(tape, i)))
        .sum();
    Some(sum as f64 / (tape.len() - from) as f64)
}

/// Returns the standard deviation per bar that the mean true range of `tape[from..]` stands for,
/// `mean true range / (1.5958 * mean close)`, a fraction of price, or nothing when there is no bar
/// or the mean close is not positive.
///
/// The range of a driftless walk is sqrt(8 / pi) = 1.5958 standard deviations in expectation
/// (W. Feller, "The asymptotic distribution of the range of sums of independent random variables",
/// Annals of Mathematical Statistics 22, 1951).
#[must_use]
pub fn atr_sigma(tape: &[Bar], from: usize) -> Option<f64> {
    let mean_range = mean_true_range(tape, from)?;
    let bars = &tape[from..];
    let sum: i128 = bars.iter().map(|bar| i128::from(bar.close)).sum();
    let mean_close = sum as f64 / bars.len() as f64;
    (mean_close > 0.0).then(|| mean_range / (EXPECTED_RANGE * mean_close))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(open: i64, high: i64, low: i64, close: i64, follows: bool) -> Bar {
        Bar {
            start: 0,
            open,
            high,
            low,
            close,
            volume: 1,
            volume_before: 0,
            follows,
        }
    }

    fn close_to(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-12 * expected.abs(),
            "{found:e} {expected:e}"
        );
    }

    // O H L C = 100 110 95 105; logarithms by hand: ln(110/95) = 0.146603474191875,
    // ln(105/100) = 0.048790164169432.
    #[test]
    fn one_bar_by_hand() {
        close_to(
            garman_klass(100.0, 110.0, 95.0, 105.0),
            0.009826723275573502,
        );
        close_to(parkinson(110.0, 95.0), 0.007751809156810505);
        close_to(
            rogers_satchell(100.0, 110.0, 95.0, 105.0),
            0.009567441357749161,
        );
        close_to(yang_zhang_weight(3.0), 0.34 / 3.34);
    }

    fn three_bars() -> [Bar; 3] {
        [
            bar(100, 110, 95, 105, false),
            bar(106, 112, 104, 108, true),
            bar(107, 109, 101, 102, true),
        ]
    }

    #[test]
    fn mean_over_bars_by_hand() {
        let tape = three_bars();
        let mean = |estimator| variance_per_bar(estimator, &tape, 0).unwrap();
        close_to(mean(Estimator::GarmanKlass), 0.004819454717167408);
        close_to(mean(Estimator::Parkinson), 0.003942787132807514);
        close_to(mean(Estimator::RogersSatchell), 0.004695494464304748);
        close_to(mean(Estimator::CloseToClose), 0.0036405439347824897);
        close_to(mean(Estimator::YangZhang), 0.004642853157574059);
    }

    #[test]
    fn a_return_looks_at_the_bar_before_the_window_only_where_it_follows() {
        let mut tape = three_bars();
        assert!(variance_per_bar(Estimator::CloseToClose, &tape, 1).is_some());
        assert!(variance_per_bar(Estimator::YangZhang, &tape, 1).is_some());
        tape[1].follows = false;
        assert_eq!(variance_per_bar(Estimator::CloseToClose, &tape, 1), None);
        assert_eq!(variance_per_bar(Estimator::YangZhang, &tape, 1), None);
        assert_eq!(variance_per_bar(Estimator::CloseToClose, &tape, 0), None);
    }

    #[test]
    fn undefined_where_a_price_is_not_positive() {
        let mut tape = three_bars();
        tape[0] = bar(-3, 5, -4, 2, false);
        assert_eq!(variance_per_bar(Estimator::GarmanKlass, &tape, 0), None);
        assert!(variance_per_bar(Estimator::GarmanKlass, &tape, 1).is_some());
        assert_eq!(variance_per_bar(Estimator::GarmanKlass, &tape, 3), None);
        assert_eq!(variance_per_bar(Estimator::GarmanKlass, &tape, 4), None);
        tape[0].close = -1;
        assert_eq!(variance_per_bar(Estimator::CloseToClose, &tape, 1), None);
    }

    #[test]
    fn remembered_terms_change_no_bit() {
        let mut tape = walk();
        tape[100].low = -1;
        for estimator in [
            Estimator::GarmanKlass,
            Estimator::Parkinson,
            Estimator::RogersSatchell,
            Estimator::CloseToClose,
            Estimator::YangZhang,
        ] {
            let mut tape = tape.clone();
            let mut terms = Terms::new(estimator);
            let mut gone = 0;
            for end in [3, 40, 41, 41, 120, 125, 190, 200, 210, 333] {
                let last = if end == 120 { 80 } else { 30 };
                for window in [70, 1, 20, last] {
                    let (from, to) = (end.max(window + gone) - window - gone, end - gone);
                    let fresh = variance_per_bar(estimator, &tape[..to], from);
                    let found = terms.variance_per_bar(&tape[..to], from);
                    assert_eq!(
                        found.map(f64::to_bits),
                        fresh.map(f64::to_bits),
                        "{end} {window}"
                    );
                    assert_eq!(terms.variance_per_bar(&tape[..to], to), None);
                }
                if end == 120 || end == 200 {
                    tape.drain(..25);
                    terms.forget(25);
                    gone += 25;
                }
            }
        }
    }

    fn walk() -> Vec<Bar> {
        (0..333_i64)
            .map(|i| {
                let open = 4_000_000 + 250 * ((i * 7_919) % 41 - 20);
                let close = 4_000_000 + 250 * (((i + 1) * 7_919) % 41 - 20);
                bar(
                    open,
                    open.max(close) + 250 * (i % 5),
                    open.min(close) - 250 * (i % 3),
                    close,
                    i > 0,
                )
            })
            .collect()
    }

    #[test]
    fn blocks_change_no_bit() {
        let tape = walk();
        for from in [0, 1, 5, 63, 64, 65, 200, 332] {
            let one_by_one = tape[from..].iter().fold(0.0, |sum, bar| {
                sum + garman_klass(
                    bar.open as f64,
                    bar.high as f64,
                    bar.low as f64,
                    bar.close as f64,
                )
            }) / (tape.len() - from) as f64;
            let found = variance_per_bar(Estimator::GarmanKlass, &tape, from).unwrap();
            assert_eq!(found.to_bits(), one_by_one.to_bits(), "from {from}");
            assert!(found >= 0.0);
        }
    }

    #[test]
    fn true_ranges_by_hand() {
        let mut tape = three_bars();
        tape[2] = bar(100, 101, 99, 100, true);
        assert_eq!(true_range(&tape, 0), 15);
        assert_eq!(true_range(&tape, 1), 8);
        assert_eq!(true_range(&tape, 2), 9);
        close_to(mean_true_range(&tape, 0).unwrap(), 32.0 / 3.0);
        close_to(
            atr_sigma(&tape, 0).unwrap(),
            (32.0 / 3.0) / (1.5958 * (313.0 / 3.0)),
        );
        assert_eq!(true_range(&tape, 2), 108 - 99);
        tape[2].follows = false;
        assert_eq!(true_range(&tape, 2), 2);
        assert_eq!(mean_true_range(&tape, 3), None);
        assert_eq!(atr_sigma(&[bar(-5, -4, -6, -5, false)], 0), None);
    }
}
