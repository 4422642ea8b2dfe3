//! The estimators over columns of prices, for research. They decide nothing in the engine.
//!
//! A window's sum is never found by adding what enters and subtracting what leaves, which leaves
//! the rounding of every large bar behind for ever. The column is cut into blocks as long as the
//! window; a window then is the end of one block and the beginning of the next, and its sum is one
//! sum from the block's border backwards plus one from it forwards (M. van Herk, "A fast algorithm
//! for local minimum and maximum filters", Pattern Recognition Letters 13, 1992, for another
//! operation than the sum). The work for a bar is two additions whatever the window, no term is
//! ever subtracted, and a bar without a value spoils only the windows that hold it.

use super::{EXPECTED_RANGE, garman_klass, parkinson, rogers_satchell, yang_zhang_weight};
use crate::config::Estimator;
use crate::error::ConfigError;
use crate::log::ln;

/// Prices outside these have no variance here, so that no ratio of two leaves the normal numbers.
const SMALLEST_PRICE: f64 = 1e-100;
const LARGEST_PRICE: f64 = 1e100;
/// Bars whose terms are computed together, rounded to whole windows: they stay in the first cache.
const CHUNK: usize = 1024;

/// Columns of bars, in points, oldest first, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Prices<'a> {
    /// Opening prices.
    pub open: &'a [f64],
    /// Highest prices.
    pub high: &'a [f64],
    /// Lowest prices.
    pub low: &'a [f64],
    /// Closing prices.
    pub close: &'a [f64],
    /// Whether the bar before is of the same session and symbol; nothing means always.
    pub follows: Option<&'a [bool]>,
}

impl Prices<'_> {
    fn follows(&self, i: usize) -> bool {
        i > 0 && self.follows.is_none_or(|follows| follows[i])
    }

    fn check(&self, out: &[f64]) -> Result<(), ConfigError> {
        let rows = self.close.len();
        let columns = [
            ("open", self.open.len()),
            ("high", self.high.len()),
            ("low", self.low.len()),
            ("follows", self.follows.map_or(rows, <[bool]>::len)),
            ("out", out.len()),
        ];
        for (name, found) in columns {
            if found != rows {
                return Err(refuse(
                    name,
                    "length differs from close",
                    found,
                    rows.to_string(),
                ));
            }
        }
        Ok(())
    }
}

/// What a rolling estimator gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Variance, a fraction of price squared.
    Variance,
    /// Its square root, a fraction of price.
    Sigma,
}

/// A window of bars and what is made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Bars in the window.
    pub window: usize,
    /// Fewest bars that give a value, at the beginning of the columns.
    pub min_periods: usize,
    /// Bars in a year: the variance is multiplied by it. Nothing means per bar.
    pub annualisation: Option<f64>,
    /// Variance or sigma.
    pub output: Output,
}

impl Rule {
    fn check(&self) -> Result<(), ConfigError> {
        if self.window == 0 {
            return Err(refuse(
                "window",
                "too short",
                self.window,
                "at least 1".to_owned(),
            ));
        }
        if self.min_periods == 0 || self.min_periods > self.window {
            let expected = format!("1 to the window, {}", self.window);
            return Err(refuse(
                "min_periods",
                "out of range",
                self.min_periods,
                expected,
            ));
        }
        match self.annualisation {
            Some(periods) if !(periods > 0.0 && periods.is_finite()) => Err(refuse(
                "annualisation",
                "out of range",
                periods,
                "a number above 0".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Makes the value of one window from its variance per bar. Rounding alone can bring a variance
    /// below zero, so that is zero; what has no value keeps none.
    #[inline(always)]
    fn finish(&self, variance: f64) -> f64 {
        let variance = if variance < 0.0 { 0.0 } else { variance };
        let scaled = match self.annualisation {
            Some(periods) => variance * periods,
            None => variance,
        };
        match self.output {
            Output::Variance => scaled,
            Output::Sigma => scaled.sqrt(),
        }
    }
}

fn refuse(field: &str, problem: &str, found: impl ToString, expected: String) -> ConfigError {
    ConfigError {
        field: field.to_owned(),
        problem: problem.to_owned(),
        found: found.to_string(),
        expected,
    }
}

/// Writes the rolling volatility of every bar: the estimator's variance per bar over the window
/// that ends with it, made into what `rule` asks for.
///
/// NaN stands where there is no value: fewer than `min_periods` bars, a bar in the window that is
/// incoherent or has no positive, finite prices, or fewer than two returns for the estimators that
/// need them. The formulas are those of [`super::variance_per_bar`], with which the results agree
/// to 1e-9 relative.
///
/// # Errors
/// When the columns differ in length, or the rule has an empty window, `min_periods` outside 1 to
/// the window, or an annualisation that is not a positive number.
///
/// # Examples
/// ```
/// # use clustercore_core::config::Estimator;
/// # use clustercore_core::volatility::rolling::{Output, Prices, Rule, volatility};
/// let prices = Prices {
///     open: &[100.0, 105.0],
///     high: &[110.0, 106.0],
///     low: &[95.0, 101.0],
///     close: &[105.0, 102.0],
///     follows: None,
/// };
/// let rule = Rule { window: 2, min_periods: 2, annualisation: None, output: Output::Sigma };
/// let mut sigma = [0.0; 2];
/// volatility(Estimator::Parkinson, prices, rule, &mut sigma)?;
/// assert!(sigma[0].is_nan());
/// assert!((sigma[1] - 0.0655).abs() < 0.0001);
/// # Ok::<(), clustercore_core::error::ConfigError>(())
/// ```
pub fn volatility(
    estimator: Estimator,
    prices: Prices<'_>,
    rule: Rule,
    out: &mut [f64],
) -> Result<(), ConfigError> {
    prices.check(out)?;
    rule.check()?;
    match estimator {
        Estimator::GarmanKlass => mean_of_terms(&prices, &rule, out, garman_klass),
        Estimator::Parkinson => {
            mean_of_terms(&prices, &rule, out, |_, high, low, _| parkinson(high, low));
        }
        Estimator::RogersSatchell => mean_of_terms(&prices, &rule, out, rogers_satchell),
        Estimator::CloseToClose => close_to_close(&prices, &rule, out),
        Estimator::YangZhang => yang_zhang(&prices, &rule, out),
    }
    Ok(())
}

/// Writes the true range of every bar in points, NaN where a price is not a number:
/// `max(H, C_{i-1}) - min(L, C_{i-1})`, and `H - L` where the bar does not follow another.
///
/// # Errors
/// When the columns differ in length.
pub fn true_range(prices: Prices<'_>, out: &mut [f64]) -> Result<(), ConfigError> {
    prices.check(out)?;
    true_ranges(&prices, 0, out);
    Ok(())
}

/// Writes the rolling mean of the true range of every bar, in points; `rule` gives the window, its
/// other fields change nothing.
///
/// # Errors
/// When the columns differ in length or the rule is refused, as in [`volatility`].
pub fn mean_true_range(prices: Prices<'_>, rule: Rule, out: &mut [f64]) -> Result<(), ConfigError> {
    prices.check(out)?;
    rule.check()?;
    sums(
        rule.window,
        out,
        |start, terms| true_ranges(&prices, start, terms),
        |_, _| (),
    );
    means(&rule, out);
    Ok(())
}

/// Writes the rolling volatility that the mean true range stands for,
/// `mean true range / (1.5958 * mean close)`, squared for [`Output::Variance`] and annualised as
/// in [`volatility`]; NaN also where the mean close is not positive.
///
/// # Errors
/// When the columns differ in length or the rule is refused, as in [`volatility`].
pub fn atr_sigma(prices: Prices<'_>, rule: Rule, out: &mut [f64]) -> Result<(), ConfigError> {
    mean_true_range(prices, rule, out)?;
    let mut closes = vec![0.0; out.len()];
    let copy = |start: usize, terms: &mut [f64]| {
        terms.copy_from_slice(&prices.close[start..start + terms.len()]);
    };
    sums(rule.window, &mut closes, copy, |_, _| ());
    means(&rule, &mut closes);
    for (value, close) in out.iter_mut().zip(closes) {
        let sigma = *value / (EXPECTED_RANGE * close);
        *value = if close > 0.0 {
            rule.finish(sigma * sigma)
        } else {
            f64::NAN
        };
    }
    Ok(())
}

/// Turns sums into means, and into NaN where there are too few bars.
fn means(rule: &Rule, sums: &mut [f64]) {
    for (i, value) in sums.iter_mut().enumerate() {
        let bars = rule.window.min(i + 1);
        *value = if bars < rule.min_periods {
            f64::NAN
        } else {
            *value / bars as f64
        };
    }
}

fn true_ranges(prices: &Prices<'_>, start: usize, out: &mut [f64]) {
    for (i, value) in (start..).zip(out.iter_mut()) {
        let (mut high, mut low) = (prices.high[i], prices.low[i]);
        let close = prices.close[i];
        let coherent = (low <= close) & (close <= high) & (high - low).is_finite();
        if prices.follows(i) {
            let before = prices.close[i - 1];
            high = if before > high { before } else { high };
            low = if before < low { before } else { low };
        }
        *value = if coherent { high - low } else { f64::NAN };
    }
}

/// Writes the sum over the last `window` terms, fewer at the beginning, for every bar. `fill` gives
/// the terms of the bars from a start on; `finish` sees each stretch of sums while it is at hand.
#[inline(always)]
fn sums(
    window: usize,
    out: &mut [f64],
    mut fill: impl FnMut(usize, &mut [f64]),
    mut finish: impl FnMut(usize, &mut [f64]),
) {
    // A window longer than the columns is one block of all their bars.
    let window = window.min(out.len().max(1));
    let chunk = window * (CHUNK / window).max(1);
    let mut terms = vec![0.0; chunk.min(out.len())];
    // Sums from a place in the last block to its end; the sum from its end on is zero.
    let mut behind = vec![0.0; window + 1];
    let mut ahead = vec![0.0; window + 1];
    let mut start = 0;
    for out in out.chunks_mut(chunk) {
        let terms = &mut terms[..out.len()];
        fill(start, terms);
        for (block, sums) in terms.chunks(window).zip(out.chunks_mut(window)) {
            add_block(block, &behind, &mut ahead, sums);
            core::mem::swap(&mut behind, &mut ahead);
        }
        finish(start, out);
        start += out.len();
    }
}

/// Writes the window sums that end in `block`, and the sums from each of its places to its end.
/// The two chains of additions do not wait for each other.
#[inline(always)]
fn add_block(block: &[f64], behind: &[f64], ahead: &mut [f64], sums: &mut [f64]) {
    let (mut forwards, mut backwards) = (0.0, 0.0);
    let places = block.iter().zip(behind[1..].iter()).zip(sums.iter_mut());
    let reversed = block.iter().zip(ahead[..block.len()].iter_mut()).rev();
    for (((term, rest), sum), (last, place)) in places.zip(reversed) {
        forwards += term;
        *sum = rest + forwards;
        backwards += last;
        *place = backwards;
    }
}

/// The estimators that are a mean of terms of single bars.
#[inline(always)]
fn mean_of_terms(
    prices: &Prices<'_>,
    rule: &Rule,
    out: &mut [f64],
    term: impl Fn(f64, f64, f64, f64) -> f64 + Copy,
) {
    sums(
        rule.window,
        out,
        |start, terms| fill_terms(prices, start, terms, term),
        |start, sums| {
            // Where every window is full the loop has no branch.
            let beginning = rule.window.saturating_sub(start + 1).min(sums.len());
            let (short, full) = sums.split_at_mut(beginning);
            for (bars, value) in (start + 1..).zip(short) {
                let enough = bars >= rule.min_periods;
                *value = if enough {
                    rule.finish(*value / bars as f64)
                } else {
                    f64::NAN
                };
            }
            let bars = rule.window as f64;
            for value in full {
                *value = rule.finish(*value / bars);
            }
        },
    );
}

#[inline(always)]
fn fill_terms(
    prices: &Prices<'_>,
    start: usize,
    terms: &mut [f64],
    term: impl Fn(f64, f64, f64, f64) -> f64,
) {
    let end = start + terms.len();
    let columns = prices.open[start..end]
        .iter()
        .zip(&prices.high[start..end])
        .zip(&prices.low[start..end])
        .zip(&prices.close[start..end]);
    for (value, (((open, high), low), close)) in terms.iter_mut().zip(columns) {
        let (open, high, low, close) = (*open, *high, *low, *close);
        let found = term(open, high, low, close);
        *value = if usable(open, high, low, close) {
            found
        } else {
            f64::NAN
        };
    }
}

#[inline(always)]
fn usable(open: f64, high: f64, low: f64, close: f64) -> bool {
    (low >= SMALLEST_PRICE)
        & (low <= open)
        & (open <= high)
        & (low <= close)
        & (close <= high)
        & (high <= LARGEST_PRICE)
}

/// Count, mean and sum of squares around the mean of some values. Two of them are put together
/// without loss (T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise
/// algorithm for computing sample variances", 1979).
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn push(&mut self, value: Option<f64>) {
        let Some(value) = value else { return };
        self.count += 1.0;
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }

    /// Returns the variance (divisor n - 1) of the values of both, NaN below two.
    fn joint_variance(self, other: Self) -> f64 {
        let count = self.count + other.count;
        if count < 2.0 {
            return f64::NAN;
        }
        let distance = other.mean - self.mean;
        let between = distance * distance * (self.count * other.count / count);
        (self.squares + other.squares + between) / (count - 1.0)
    }
}

/// Calls `emit` for every bar with the variance of the values in its window, blocks as in [`sums`].
fn variances(
    rows: usize,
    window: usize,
    value: impl Fn(usize) -> Option<f64>,
    mut emit: impl FnMut(usize, f64),
) {
    let window = window.min(rows.max(1));
    let mut behind = vec![Moments::default(); window + 1];
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + window);
        let mut forwards = Moments::default();
        for i in start..end {
            forwards.push(value(i));
            emit(i, behind[i - start + 1].joint_variance(forwards));
        }
        let mut backwards = Moments::default();
        for i in (start..end).rev() {
            backwards.push(value(i));
            behind[i - start] = backwards;
        }
        start = end;
    }
}

/// Returns the log return into bar `i` from the close before it, where it follows that bar.
fn return_into(prices: &Prices<'_>, i: usize, to: &[f64]) -> Option<f64> {
    if !prices.follows(i) {
        return None;
    }
    let (before, after) = (prices.close[i - 1], to[i]);
    let usable = (SMALLEST_PRICE..=LARGEST_PRICE).contains(&before)
        & (SMALLEST_PRICE..=LARGEST_PRICE).contains(&after);
    Some(if usable { ln(after / before) } else { f64::NAN })
}

fn is_usable(prices: &Prices<'_>, i: usize) -> bool {
    usable(
        prices.open[i],
        prices.high[i],
        prices.low[i],
        prices.close[i],
    )
}

fn close_to_close(prices: &Prices<'_>, rule: &Rule, out: &mut [f64]) {
    // A bar without a return in its window can still be unusable: it then spoils the return.
    let value = |i| {
        if is_usable(prices, i) {
            return_into(prices, i, prices.close)
        } else {
            Some(f64::NAN)
        }
    };
    variances(prices.close.len(), rule.window, value, |i, variance| {
        let enough = rule.window.min(i + 1) >= rule.min_periods;
        out[i] = if enough {
            rule.finish(variance)
        } else {
            f64::NAN
        };
    });
}

fn yang_zhang(prices: &Prices<'_>, rule: &Rule, out: &mut [f64]) {
    let rows = prices.close.len();
    let per_bar = Rule {
        annualisation: None,
        output: Output::Variance,
        ..*rule
    };
    mean_of_terms(prices, &per_bar, out, rogers_satchell);
    let weight = |i: usize| yang_zhang_weight(rule.window.min(i + 1) as f64);
    let inside = |i: usize| {
        Some(if is_usable(prices, i) {
            ln(prices.close[i] / prices.open[i])
        } else {
            f64::NAN
        })
    };
    variances(rows, rule.window, inside, |i, variance| {
        out[i] = weight(i) * variance + (1.0 - weight(i)) * out[i];
    });
    let overnight = |i| return_into(prices, i, prices.open);
    variances(rows, rule.window, overnight, |i, variance| {
        out[i] = rule.finish(variance + out[i]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bar::Bar;
    use crate::volatility::variance_per_bar;

    const ALL: [Estimator; 5] = [
        Estimator::GarmanKlass,
        Estimator::Parkinson,
        Estimator::RogersSatchell,
        Estimator::CloseToClose,
        Estimator::YangZhang,
    ];

    struct Market {
        tape: Vec<Bar>,
        columns: [Vec<f64>; 4],
        follows: Vec<bool>,
    }

    impl Market {
        /// A walk on a grid of 250, with now and then a bar a hundred times as wide.
        fn new(bars: usize) -> Self {
            let mut state = 7_u64;
            let mut draw = |below: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                ((state >> 33) % below) as i64
            };
            let mut price = 4_000_000_i64;
            let mut tape = Vec::new();
            for i in 0..bars {
                let wide = if draw(5_000) == 0 { 100 } else { 1 };
                let open = (price + 250 * (draw(3) - 1)).max(1_000_000);
                let close = (open + 250 * wide * (draw(9) - 4)).max(1_000_000);
                let (high, low) = (
                    open.max(close) + 250 * draw(4),
                    open.min(close) - 250 * draw(4),
                );
                price = if close > 8_000_000 { 4_000_000 } else { close };
                tape.push(Bar {
                    start: i as i64,
                    open,
                    high,
                    low,
                    close,
                    volume: 1,
                    volume_before: 0,
                    follows: i % 1_380 != 0 && close == price,
                });
            }
            let column =
                |price: fn(&Bar) -> i64| tape.iter().map(|bar| price(bar) as f64).collect();
            let columns = [
                column(|bar| bar.open),
                column(|bar| bar.high),
                column(|bar| bar.low),
                column(|bar| bar.close),
            ];
            let follows = tape.iter().map(|bar| bar.follows).collect();
            Self {
                tape,
                columns,
                follows,
            }
        }

        fn prices(&self) -> Prices<'_> {
            let [open, high, low, close] = &self.columns;
            Prices {
                open,
                high,
                low,
                close,
                follows: Some(&self.follows),
            }
        }
    }

    fn rule(window: usize, min_periods: usize) -> Rule {
        Rule {
            window,
            min_periods,
            annualisation: None,
            output: Output::Variance,
        }
    }

    #[test]
    fn agrees_with_fresh_sums_on_every_bar_and_window() {
        let market = Market::new(3_000);
        let mut out = vec![0.0; 3_000];
        for estimator in ALL {
            for window in [1, 2, 3, 14, 480, 1_023, 1_024, 1_025, 2_999, 5_000] {
                volatility(estimator, market.prices(), rule(window, 1), &mut out).unwrap();
                for i in (0..3_000).step_by(7) {
                    let tape = &market.tape[..=i];
                    let from = (i + 1).saturating_sub(window);
                    match variance_per_bar(estimator, tape, from) {
                        Some(fresh) => {
                            let error = (out[i] - fresh).abs();
                            assert!(
                                error <= 1e-9 * fresh + 1e-25,
                                "{estimator:?} {window} {i}: {} {fresh}",
                                out[i]
                            );
                        }
                        None => assert!(out[i].is_nan(), "{estimator:?} {window} {i}: {}", out[i]),
                    }
                }
            }
        }
    }

    #[test]
    fn agrees_with_fresh_sums_after_two_million_bars_and_is_never_negative() {
        let rows = 2_000_000;
        let market = Market::new(rows);
        let mut out = vec![0.0; rows];
        volatility(
            Estimator::GarmanKlass,
            market.prices(),
            rule(480, 1),
            &mut out,
        )
        .unwrap();
        assert!(out.iter().all(|value| *value >= 0.0));
        for i in (rows - 100_000..rows).step_by(997) {
            let fresh = variance_per_bar(Estimator::GarmanKlass, &market.tape[..=i], i - 479);
            let fresh = fresh.unwrap();
            assert!(
                (out[i] - fresh).abs() <= 1e-12 * fresh,
                "{i}: {} {fresh}",
                out[i]
            );
        }
    }

    #[test]
    fn annualised_sigma_is_the_root_of_the_scaled_variance() {
        let market = Market::new(50);
        let (mut variance, mut sigma) = ([0.0; 50], [0.0; 50]);
        for estimator in ALL {
            volatility(estimator, market.prices(), rule(10, 10), &mut variance).unwrap();
            let yearly = Rule {
                annualisation: Some(1e5),
                output: Output::Sigma,
                ..rule(10, 10)
            };
            volatility(estimator, market.prices(), yearly, &mut sigma).unwrap();
            assert!(variance[8].is_nan() && sigma[8].is_nan());
            for i in 9..50 {
                assert_eq!(sigma[i].to_bits(), (variance[i] * 1e5).sqrt().to_bits());
            }
        }
    }

    #[test]
    fn a_bar_without_a_value_spoils_only_its_windows() {
        for spoil in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            let mut market = Market::new(60);
            market.columns[2][30] = spoil;
            let mut out = [0.0; 60];
            for estimator in ALL {
                volatility(estimator, market.prices(), rule(7, 1), &mut out).unwrap();
                for (i, value) in out.iter().enumerate().skip(3) {
                    assert_eq!(
                        value.is_nan(),
                        (30..37).contains(&i),
                        "{estimator:?} {spoil} {i}"
                    );
                }
            }
        }
    }

    #[test]
    fn true_range_and_its_mean_agree_with_the_tape() {
        let market = Market::new(2_000);
        let mut out = vec![0.0; 2_000];
        true_range(market.prices(), &mut out).unwrap();
        for (i, value) in out.iter().enumerate() {
            assert_eq!(
                *value,
                crate::volatility::true_range(&market.tape, i) as f64
            );
        }
        mean_true_range(market.prices(), rule(14, 14), &mut out).unwrap();
        assert!(out[12].is_nan());
        for (i, value) in out.iter().enumerate().skip(13) {
            let fresh = crate::volatility::mean_true_range(&market.tape[..=i], i - 13).unwrap();
            assert!((value - fresh).abs() <= 1e-12 * fresh);
        }
        let sigma = Rule {
            output: Output::Sigma,
            ..rule(14, 14)
        };
        atr_sigma(market.prices(), sigma, &mut out).unwrap();
        for (i, value) in out.iter().enumerate().skip(13) {
            let fresh = crate::volatility::atr_sigma(&market.tape[..=i], i - 13).unwrap();
            assert!((value - fresh).abs() <= 1e-12 * fresh);
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let market = Market::new(10);
        let mut out = [0.0; 10];
        let mut field = |rule| {
            volatility(Estimator::GarmanKlass, market.prices(), rule, &mut out)
                .unwrap_err()
                .field
        };
        assert_eq!(field(rule(0, 1)), "window");
        assert_eq!(field(rule(5, 6)), "min_periods");
        assert_eq!(field(rule(5, 0)), "min_periods");
        assert_eq!(
            field(Rule {
                annualisation: Some(f64::NAN),
                ..rule(5, 5)
            }),
            "annualisation"
        );
        let error = true_range(market.prices(), &mut [0.0; 9]).unwrap_err();
        assert_eq!((error.field.as_str(), error.found.as_str()), ("out", "9"));
        volatility(
            Estimator::YangZhang,
            Prices {
                open: &[],
                high: &[],
                low: &[],
                close: &[],
                follows: None,
            },
            rule(usize::MAX, 5),
            &mut [],
        )
        .unwrap();
    }
}
