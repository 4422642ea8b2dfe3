//! Stop, target and quantity of an order. Invariant: everything is fixed at the order's creation,
//! from what is known there.

use crate::bar::{PRICE_LIMIT_NANOS, Tape};
use crate::config::{Config, Estimator, LegTarget, Rounding, StopMode, TargetMode};
use crate::detector::bars_in;
use crate::instrument::{Instrument, NANOS_PER_POINT};
use crate::volatility::{Terms, atr_sigma};

/// Slack of every rounding, so that a value that is whole but for its last bit counts as whole.
const SLACK: f64 = 1e-9;

/// Returns the largest whole number at most `x`.
#[must_use]
pub fn floor(x: f64) -> f64 {
    (x + SLACK).floor()
}

/// Returns the smallest whole number at least `x`.
#[must_use]
pub fn ceil(x: f64) -> f64 {
    (x - SLACK).ceil()
}

/// Volatility over the holding time, and who measured it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sigma {
    /// Fraction of price.
    pub hold: f64,
    /// Name of the source.
    pub source: &'static str,
}

/// The volatility chain, its lengths in bars.
#[derive(Clone, Debug)]
pub struct Chain {
    bars: usize,
    min_bars: usize,
    atr_bars: usize,
    atr_min_bars: usize,
    hold_bars: f64,
    estimator: Estimator,
    terms: Terms,
    forgotten: usize,
}

impl Chain {
    /// Returns the chain for a bar interval.
    #[must_use]
    pub fn new(config: &Config, interval: i64) -> Self {
        let bars = |minutes| bars_in(minutes, interval) as usize;
        Self {
            bars: bars(config.volatility.minutes),
            min_bars: bars(config.volatility.min_minutes),
            atr_bars: bars(config.volatility.atr_minutes),
            atr_min_bars: bars(config.volatility.atr_min_minutes),
            hold_bars: bars_in(config.exit.max_hold_minutes, interval) as f64,
            estimator: config.volatility.estimator,
            terms: Terms::new(config.volatility.estimator),
            forgotten: 0,
        }
    }

    /// Returns how many bars the chain can look at.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.bars.max(self.atr_bars)
    }

    /// Returns the volatility over the holding time at the end of the tape.
    #[must_use]
    pub fn sigma(&mut self, tape: &Tape, symbol_first: usize, reference: i64) -> Sigma {
        let have = tape.len() - symbol_first;
        let from = |bars: usize| tape.len() - bars.min(have);
        self.terms.forget(tape.forgotten() - self.forgotten);
        self.forgotten = tape.forgotten();
        if have >= self.min_bars
            && let Some(variance) = self.terms.variance_per_bar(tape.bars(), from(self.bars))
        {
            let hold = (variance * self.hold_bars).sqrt();
            return Sigma {
                hold,
                source: estimator_word(self.estimator),
            };
        }
        if have >= self.atr_min_bars
            && let Some(sigma) = atr_sigma(tape.bars(), from(self.atr_bars))
        {
            return Sigma {
                hold: sigma * self.hold_bars.sqrt(),
                source: "atr",
            };
        }
        let price = (reference as f64).abs() / NANOS_PER_POINT;
        Sigma {
            hold: 0.0015 + price / 1e6,
            source: "price",
        }
    }
}

fn estimator_word(estimator: Estimator) -> &'static str {
    match estimator {
        Estimator::GarmanKlass => "garman_klass",
        Estimator::Parkinson => "parkinson",
        Estimator::RogersSatchell => "rogers_satchell",
        Estimator::CloseToClose => "close_to_close",
        Estimator::YangZhang => "yang_zhang",
    }
}

/// Returns the stop distance in ticks, rounded up, at least one.
#[must_use]
pub fn stop_ticks(config: &Config, sigma: Sigma, reference: i64, tick: i64) -> i64 {
    let price = (reference as f64).abs();
    let ticks = match config.stop.mode {
        StopMode::Fixed => config.stop.distance.in_ticks(tick),
        StopMode::Volatility => {
            let volatile = config.stop.k * sigma.hold * price;
            let smallest = config.stop.min_pct / 100.0 * price;
            volatile.max(smallest) / tick as f64
        }
    };
    whole_ticks(ceil(ticks), tick)
}

/// Returns a number of ticks, at least one, and no further than any price can be.
fn whole_ticks(ticks: f64, tick: i64) -> i64 {
    (ticks as i64).min(PRICE_LIMIT_NANOS / tick).max(1)
}

/// Returns a distance in ticks rounded to the nearest, halves up, at least one.
#[must_use]
pub fn nearest_ticks(ticks: f64, tick: i64) -> i64 {
    whole_ticks(floor(ticks + 0.5), tick)
}

/// Returns the target distance in ticks.
#[must_use]
pub fn target_ticks(config: &Config, stop_ticks: i64, tick: i64) -> i64 {
    let ticks = match config.target.mode {
        TargetMode::Reward => config.target.reward * stop_ticks as f64,
        TargetMode::Fixed => config.target.distance.in_ticks(tick),
    };
    nearest_ticks(ticks, tick)
}

/// Returns the distance of a leg's target in ticks.
#[must_use]
pub fn leg_ticks(target: LegTarget, stop_ticks: i64, tick: i64) -> i64 {
    let ticks = match target {
        LegTarget::Reward(reward) => reward * stop_ticks as f64,
        LegTarget::Distance(distance) => distance.in_ticks(tick),
    };
    nearest_ticks(ticks, tick)
}

/// Returns the quantity before any limit.
#[must_use]
pub fn base_quantity(config: &Config, strength: f64, multiplier: f64) -> i64 {
    let contracts = config.size.base * (1.0 + config.size.signal_scale * strength) * multiplier;
    let whole = match config.size.rounding {
        Rounding::HalfUp => floor(contracts + 0.5),
        Rounding::Floor => floor(contracts),
    };
    (whole as i64).clamp(1, config.size.max_contracts)
}

/// Returns the quantity that the risk per trade and the margin leave, or why nothing is left.
///
/// # Errors
/// The reason, when a strict limit leaves no contract.
pub fn limited_quantity(
    config: &Config,
    instrument: &Instrument,
    quantity: i64,
    equity: f64,
    stop_distance: i64,
) -> Result<i64, &'static str> {
    let fewest = i64::from(!config.risk.strict);
    let mut quantity = quantity;
    if let Some(fraction) = config.risk.max_risk_per_trade {
        let loss = stop_distance as f64 / NANOS_PER_POINT * instrument.point_value;
        quantity = quantity.min((floor(fraction * equity / loss) as i64).max(fewest));
        if quantity == 0 {
            return Err("max_risk");
        }
    }
    if let Some(margin) = instrument.margin.filter(|margin| *margin > 0.0) {
        quantity = quantity.min((floor(equity / margin) as i64).max(fewest));
        if quantity == 0 {
            return Err("margin");
        }
    }
    Ok(quantity)
}
