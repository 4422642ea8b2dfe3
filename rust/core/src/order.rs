//! A working order. Invariant: everything about it was fixed at its creation.

use crate::bar::{BarInput, PRICE_LIMIT_NANOS};
use crate::config::{Config, EntryMode, LimitAt};
use crate::instrument::Instrument;
use crate::learning::Assessment;
use crate::record::Order;
use crate::signal::{Armed, Direction};
use crate::sizing::Sigma;

/// When something ends, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Time.
    pub time: i64,
    /// Place in the order of work at one instant.
    pub class: u8,
    /// Reason.
    pub reason: &'static str,
}

/// A working order.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The signal behind it.
    pub armed: Armed,
    /// Identity of the trade.
    pub trade_id: u128,
    /// When it was made.
    pub confirmed_time: i64,
    /// Price on which the distances rest, in 1e-9.
    pub reference: i64,
    /// Price of a limit order, in 1e-9.
    pub limit: Option<i64>,
    /// Contracts.
    pub quantity: i64,
    /// Distance of the stop from the fill, in 1e-9.
    pub stop_distance: i64,
    /// Distance of the target from the fill, in 1e-9.
    pub target_distance: i64,
    /// Volatility over the holding time.
    pub sigma: Sigma,
    /// What the record of its context said.
    pub assessment: Assessment,
    /// First deadline.
    pub deadline: Deadline,
    /// Whether no bar has come since it was made.
    pub is_new: bool,
}

/// How an order fills in a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// At the bar's open, or at a price known to be no better.
    AtOpen(i64),
    /// Inside the bar.
    Inside(i64),
}

impl Placed {
    /// Returns the fill at a bar's open.
    #[must_use]
    pub fn fill_at_open(
        &self,
        bar: &BarInput,
        config: &Config,
        instrument: &Instrument,
    ) -> Option<Fill> {
        match self.limit {
            None => {
                let worse: fn(i64, i64) -> i64 = match self.armed.direction {
                    Direction::Long => i64::max,
                    Direction::Short => i64::min,
                };
                let price = if config.entry.adverse {
                    worse(bar.open, bar.close)
                } else {
                    bar.open
                };
                Some(Fill::AtOpen(price))
            }
            Some(limit) => (self.is_new && self.is_through(bar.open, limit, config, instrument))
                .then_some(Fill::AtOpen(bar.open)),
        }
    }

    /// Returns the fill inside a bar.
    #[must_use]
    pub fn fill_inside(
        &self,
        bar: &BarInput,
        config: &Config,
        instrument: &Instrument,
    ) -> Option<Fill> {
        let limit = self.limit?;
        let best = match self.armed.direction {
            Direction::Long => bar.low,
            Direction::Short => bar.high,
        };
        self.is_through(best, limit, config, instrument)
            .then_some(Fill::Inside(limit))
    }

    fn is_through(&self, price: i64, limit: i64, config: &Config, instrument: &Instrument) -> bool {
        let through = config.entry.through_ticks * instrument.tick_nanos;
        self.armed.direction.sign() * (limit - price) >= through
    }

    /// Returns the order's row.
    #[must_use]
    pub fn row(
        &self,
        config: &Config,
        filled: Option<(i64, i64)>,
        resolved_time: i64,
        reason: &'static str,
    ) -> Order {
        let posterior = self.assessment.posterior;
        Order {
            stop_distance: Some(self.stop_distance),
            target_distance: Some(self.target_distance),
            sigma_hold: Some(self.sigma.hold),
            sigma_source: Some(self.sigma.source),
            context: self.assessment.context,
            multiplier: Some(self.assessment.multiplier),
            posterior_mean: posterior.map(|posterior| posterior.mean),
            posterior_low: posterior.map(|posterior| posterior.low),
            posterior_high: posterior.map(|posterior| posterior.high),
            entry_time: filled.map(|(time, _)| time),
            entry_price: filled.map(|(_, price)| price),
            quantity: self.quantity,
            ..blocked_row(
                &self.armed,
                self.trade_id,
                config,
                Asked {
                    confirmed_time: self.confirmed_time,
                    reference: self.reference,
                    limit: self.limit,
                    valid_until: self.deadline.time,
                },
                resolved_time,
                reason,
            )
        }
    }
}

/// What was asked for before anything stood in its way.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When.
    pub confirmed_time: i64,
    /// Price on which the distances rest, in 1e-9.
    pub reference: i64,
    /// Price of a limit order, in 1e-9.
    pub limit: Option<i64>,
    /// First deadline.
    pub valid_until: i64,
}

/// Returns the row of an order that was blocked before it was sized.
#[must_use]
pub fn blocked_row(
    armed: &Armed,
    trade_id: u128,
    config: &Config,
    asked: Asked,
    resolved_time: i64,
    reason: &'static str,
) -> Order {
    Order {
        trade_id,
        symbol: armed.symbol,
        decision_time: armed.decision_time,
        confirmed_time: asked.confirmed_time,
        direction: armed.direction.word(),
        mode: match config.entry.mode {
            EntryMode::NextOpen => "next_open",
            EntryMode::Limit => "limit",
            EntryMode::Close => "close",
        },
        quantity: 0,
        limit_price: asked.limit,
        reference_price: asked.reference,
        stop_distance: None,
        target_distance: None,
        sigma_hold: None,
        sigma_source: None,
        context: None,
        multiplier: None,
        posterior_mean: None,
        posterior_low: None,
        posterior_high: None,
        valid_until: asked.valid_until,
        entry_time: None,
        entry_price: None,
        resolved_time,
        reason,
    }
}

/// Returns the limit price of a signal, in 1e-9.
#[must_use]
pub fn limit_price(
    config: &Config,
    armed: &Armed,
    confirming_close: i64,
    tick: i64,
) -> Option<i64> {
    if config.entry.mode != EntryMode::Limit {
        return None;
    }
    let at = match config.entry.limit_at {
        LimitAt::ConfirmingClose => confirming_close,
        LimitAt::ModalPrice => armed.modal_price,
    };
    // No offset reaches further than any price can be.
    let offset = config.entry.offset_ticks.saturating_mul(tick);
    Some(at - armed.direction.sign() * offset.min(PRICE_LIMIT_NANOS))
}

/// Returns the identity of a trade: FNV-1a over symbol, decision time and configuration, 128 bits.
#[must_use]
pub fn trade_id(symbol: &str, decision_time: i64, config_id: &str) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    format!("{symbol}|{decision_time}|{config_id}")
        .bytes()
        .fold(OFFSET, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(PRIME)
        })
}
