//! An open position and its exits. Invariant: contracts that left plus contracts open are the
//! contracts entered.

use serde::{Deserialize, Serialize};

use crate::bar::{BarInput, PRICE_LIMIT_NANOS, Tape};
use crate::carry::OpenPosition;
use crate::config::{Config, EntryMode, SameBar, Trailing};
use crate::detector::NEVER;
use crate::instrument::{Instrument, NANOS_PER_POINT};
use crate::learning::Assessment;
use crate::order::{Deadline, Placed};
use crate::record::Trade;
use crate::signal::{Armed, Direction};
use crate::sizing::{Sigma, floor, leg_ticks};
use crate::volatility::mean_true_range;

/// A part of a position that leaves at its own target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenLeg {
    /// Target, in 1e-9.
    pub price: i64,
    /// Contracts.
    pub quantity: i64,
}

/// Money that an exit brings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proceeds {
    /// Result of the contracts that left, in USD.
    pub gross: f64,
    /// Costs of their leaving, in USD.
    pub costs: f64,
}

/// An open position.
#[derive(Clone, Debug)]
pub struct Position {
    order: Placed,
    entry_time: i64,
    entry_price: i64,
    stop: i64,
    initial_stop: i64,
    target: i64,
    legs: Vec<OpenLeg>,
    open: i64,
    /// Sum of quantity times price of what left.
    left: i128,
    gross: f64,
    costs: f64,
    adverse: i64,
    favourable: i64,
    /// Best price of the finished bars since the entry.
    best: Option<i64>,
    bars: i64,
    ambiguous: bool,
    /// Entered at a price nobody can have.
    optimistic: bool,
    stale: bool,
    /// Filled inside the bar under way, whose extremes may have come before.
    fresh: bool,
    exit: Option<(i64, &'static str)>,
}

impl Position {
    /// Returns a position that was just filled. `inside` says that the fill came inside the bar.
    #[must_use]
    pub fn new(
        order: Placed,
        config: &Config,
        instrument: &Instrument,
        time: i64,
        price: i64,
        inside: bool,
    ) -> Self {
        let tick = instrument.tick_nanos;
        let sign = order.armed.direction.sign();
        let stop = price - sign * order.stop_distance;
        let mut unassigned = order.quantity;
        let mut legs = Vec::new();
        for leg in &config.exit.scale_out {
            let quantity = (floor(leg.fraction * order.quantity as f64) as i64).min(unassigned);
            let ticks = leg_ticks(leg.target, order.stop_distance / tick, tick);
            // A leg that is no nearer than the target leaves with it: the price passes that first.
            if quantity > 0 && ticks * tick < order.target_distance {
                legs.push(OpenLeg {
                    price: price + sign * ticks * tick,
                    quantity,
                });
                unassigned -= quantity;
            }
        }
        Self {
            entry_time: time,
            entry_price: price,
            stop,
            initial_stop: stop,
            target: price + sign * order.target_distance,
            legs,
            open: order.quantity,
            left: 0,
            gross: 0.0,
            costs: cost(config, instrument, order.quantity),
            adverse: 0,
            favourable: 0,
            best: None,
            bars: 1,
            ambiguous: false,
            optimistic: config.entry.mode == EntryMode::Close,
            stale: false,
            fresh: inside,
            exit: None,
            order,
        }
    }

    /// Returns everything that its exit and its row depend on, the symbol by name.
    #[must_use]
    pub fn carried(&self, symbols: &[String]) -> OpenPosition {
        let order = &self.order;
        let armed = &order.armed;
        OpenPosition {
            adverse: self.adverse,
            ambiguous: self.ambiguous,
            bars: self.bars,
            best: self.best,
            confirmed_time: order.confirmed_time,
            context: order.assessment.context,
            costs: self.costs,
            decision_time: armed.decision_time,
            direction: armed.direction,
            entry_price: self.entry_price,
            entry_time: self.entry_time,
            favourable: self.favourable,
            gross: self.gross,
            initial_stop: self.initial_stop,
            left: self.left,
            legs: self.legs.clone(),
            modal_position: armed.modal_position,
            modal_price: armed.modal_price,
            modal_tied: armed.modal_tied,
            momentum: armed.momentum,
            multiplier: order.assessment.multiplier,
            new_york_hour: armed.new_york_hour,
            open: self.open,
            optimistic: self.optimistic,
            quantity: order.quantity,
            rank: armed.rank,
            sigma_hold: order.sigma.hold,
            sigma_source: order.sigma.source,
            stop: self.stop,
            strength: armed.strength,
            symbol: symbols
                .get(armed.symbol as usize)
                .cloned()
                .unwrap_or_default(),
            target: self.target,
            trade_id: order.trade_id,
            volume_ratio: armed.volume_ratio,
        }
    }

    /// Returns the position that another engine left open, in this engine's number of its symbol.
    #[must_use]
    pub fn taken_over(from: OpenPosition, symbol: u32) -> Self {
        Self {
            order: order_behind(&from, symbol),
            entry_time: from.entry_time,
            entry_price: from.entry_price,
            stop: from.stop,
            initial_stop: from.initial_stop,
            target: from.target,
            legs: from.legs,
            open: from.open,
            left: from.left,
            gross: from.gross,
            costs: from.costs,
            adverse: from.adverse,
            favourable: from.favourable,
            best: from.best,
            bars: from.bars,
            ambiguous: from.ambiguous,
            optimistic: from.optimistic,
            stale: false,
            fresh: false,
            exit: None,
        }
    }

    /// Returns the order that made the position.
    #[must_use]
    pub fn order(&self) -> &Placed {
        &self.order
    }

    /// Returns the direction.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.order.armed.direction
    }

    /// Returns the contracts still open.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.open
    }

    /// Returns the current stop.
    #[must_use]
    pub fn stop(&self) -> i64 {
        self.stop
    }

    /// Returns the result of the open contracts at a price, in USD.
    #[must_use]
    pub fn open_result(&self, price: i64, instrument: &Instrument) -> f64 {
        self.result(price, self.open, instrument)
    }

    fn result(&self, price: i64, quantity: i64, instrument: &Instrument) -> f64 {
        let nanos = self.direction().sign() * (price - self.entry_price);
        nanos as f64 / NANOS_PER_POINT * instrument.point_value * quantity as f64
    }

    /// Counts a bar in which the position begins open.
    pub fn begin_bar(&mut self) {
        self.bars += 1;
    }

    /// Takes contracts out at a price.
    fn take(&mut self, price: i64, quantity: i64, trading: &Trading) -> Proceeds {
        let proceeds = Proceeds {
            gross: self.result(price, quantity, trading.instrument),
            costs: cost(trading.config, trading.instrument, quantity),
        };
        self.open -= quantity;
        self.left += i128::from(quantity) * i128::from(price);
        self.gross += proceeds.gross;
        self.costs += proceeds.costs;
        self.see(price);
        proceeds
    }

    /// Takes everything out.
    pub fn leave(&mut self, price: i64, time: i64, reason: &'static str, trading: &mut Trading) {
        let proceeds = self.take(price, self.open, trading);
        self.exit = Some((time, reason));
        trading.proceeds.push(proceeds);
    }

    /// Takes everything out at the last price of a contract that was left.
    pub fn leave_stale(&mut self, price: i64, time: i64, trading: &mut Trading) {
        self.stale = true;
        self.leave(price, time, "session_end_late", trading);
    }

    fn see(&mut self, price: i64) {
        let gain = self.direction().sign() * (price - self.entry_price);
        self.favourable = self.favourable.max(gain);
        self.adverse = self.adverse.max(-gain);
    }

    /// Returns whether a price is at least `through` beyond another in the direction of a profit.
    fn beyond(&self, price: i64, level: i64, through: i64) -> bool {
        self.direction().sign() * (price - level) >= through
    }

    /// Exits at the open of a bar in which the position begins open.
    pub fn at_open(&mut self, bar: &BarInput, trading: &mut Trading) {
        if self.beyond(self.stop, bar.open, 0) {
            self.leave(bar.open, bar.start, "stop", trading);
            return;
        }
        self.take_legs(bar.open, bar.start, trading);
        if self.open > 0 && self.beyond(bar.open, self.target, trading.through) {
            self.leave(self.target, bar.start, "target", trading);
        }
    }

    /// Exits inside a bar.
    pub fn inside(&mut self, bar: &BarInput, end: i64, trading: &mut Trading) {
        let (worst, best) = match self.direction() {
            Direction::Long => (bar.low, bar.high),
            Direction::Short => (bar.high, bar.low),
        };
        let stopped = self.beyond(self.stop, worst, 0);
        if stopped {
            let profit = self.beyond(best, self.target, trading.through)
                || self
                    .legs
                    .iter()
                    .any(|leg| self.beyond(best, leg.price, trading.through));
            self.ambiguous |= profit;
            if !profit || trading.config.exit.same_bar == SameBar::StopFirst {
                self.leave(self.stop, end, "stop", trading);
                return;
            }
        }
        self.take_legs(best, end, trading);
        if self.open > 0 && self.beyond(best, self.target, trading.through) {
            self.leave(self.target, end, "target", trading);
        }
        if self.open > 0 && stopped {
            self.leave(self.stop, end, "stop", trading);
        }
    }

    /// The stop of the bar in which a limit order filled: the price had to pass the limit first.
    pub fn inside_after_fill(&mut self, bar: &BarInput, end: i64, trading: &mut Trading) {
        let (worst, worse_of): (i64, fn(i64, i64) -> i64) = match self.direction() {
            Direction::Long => (bar.low, i64::min),
            Direction::Short => (bar.high, i64::max),
        };
        if self.beyond(self.stop, worst, 0) {
            self.leave(worse_of(self.stop, bar.open), end, "stop", trading);
        }
    }

    fn take_legs(&mut self, reached: i64, time: i64, trading: &mut Trading) {
        let legs = std::mem::take(&mut self.legs);
        for leg in legs {
            if !self.beyond(reached, leg.price, trading.through) {
                self.legs.push(leg);
                continue;
            }
            let proceeds = self.take(leg.price, leg.quantity, trading);
            trading.proceeds.push(proceeds);
            if self.open == 0 {
                self.exit = Some((time, "scale_out"));
            }
        }
    }

    /// Sees the whole of a bar that the position lived through.
    pub fn live_through(&mut self, bar: &BarInput) {
        if std::mem::take(&mut self.fresh) {
            return;
        }
        self.see(bar.high);
        self.see(bar.low);
        let best = match self.direction() {
            Direction::Long => self.best.map_or(bar.high, |best| best.max(bar.high)),
            Direction::Short => self.best.map_or(bar.low, |best| best.min(bar.low)),
        };
        self.best = Some(best);
    }

    /// Returns why the position ends with a bar that ends at `end`.
    #[must_use]
    pub fn ends_with(&self, end: i64, flatten_time: i64, max_hold: i64) -> Option<&'static str> {
        if end >= flatten_time {
            Some("session_end")
        } else if end >= self.entry_time + max_hold {
            Some("time")
        } else {
            None
        }
    }

    /// Moves a trailing stop after a bar has ended.
    pub fn trail(&mut self, tape: &Tape, symbol_first: usize, config: &Config, tick: i64) {
        let Some(best) = self.best else {
            return;
        };
        let distance = match config.exit.trailing {
            Trailing::Off => return,
            Trailing::Fixed => config.exit.trailing_distance.in_ticks(tick) * tick as f64,
            Trailing::TrueRange => {
                let have = tape.len() - symbol_first;
                let bars = (config.exit.trailing_bars as usize).min(have);
                let Some(range) = mean_true_range(tape.bars(), tape.len() - bars) else {
                    return;
                };
                config.exit.trailing_multiple * range
            }
        };
        let sign = self.direction().sign();
        // Mirrored for a short, so that rounding down is away from the price on both sides.
        let ticks = floor((sign as f64 * best as f64 - distance) / tick as f64) as i64;
        // A stop beyond all prices is no stop, and its product with the tick does not exist.
        let furthest = 2 * (PRICE_LIMIT_NANOS / tick);
        let candidate = sign * ticks.clamp(-furthest, furthest) * tick;
        if self.beyond(candidate, self.stop, 1) {
            self.stop = candidate;
        }
    }

    /// Returns whether everything has left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.exit.is_some()
    }

    /// Returns the trade as it stands, valued at `price` when contracts are still open.
    #[must_use]
    pub fn open_trade(
        &self,
        price: i64,
        time: i64,
        config: &Config,
        instrument: &Instrument,
    ) -> Trade {
        let mut valued = self.clone();
        let mut proceeds = Vec::new();
        let mut trading = Trading {
            config,
            instrument,
            through: 0,
            proceeds: &mut proceeds,
        };
        valued.leave(price, time, "open", &mut trading);
        valued.trade(instrument)
    }

    /// Returns the trade's row.
    #[must_use]
    pub fn trade(&self, instrument: &Instrument) -> Trade {
        let (exit_time, exit_reason) = self.exit.unwrap_or((self.entry_time, "open"));
        let order = &self.order;
        let armed = &order.armed;
        let quantity = order.quantity as f64;
        let net = self.gross - self.costs;
        let entry_points = self.entry_price as f64 / NANOS_PER_POINT;
        let notional = entry_points.abs() * instrument.point_value * quantity;
        Trade {
            trade_id: order.trade_id,
            symbol: armed.symbol,
            direction: armed.direction.word(),
            quantity: order.quantity,
            decision_time: armed.decision_time,
            confirmed_time: order.confirmed_time,
            entry_time: self.entry_time,
            entry_price: self.entry_price,
            stop: self.initial_stop,
            target: self.target,
            exit_time,
            exit_price: self.left as f64 / quantity / NANOS_PER_POINT,
            exit_reason,
            ambiguous: self.ambiguous,
            optimistic: self.optimistic,
            stale: self.stale,
            sigma_hold: order.sigma.hold,
            sigma_source: order.sigma.source,
            volume_ratio: armed.volume_ratio,
            rank: armed.rank,
            modal_price: armed.modal_price,
            modal_tied: armed.modal_tied,
            modal_position: armed.modal_position,
            momentum: armed.momentum,
            strength: armed.strength,
            context: order.assessment.context,
            multiplier: order.assessment.multiplier,
            gross: self.gross,
            costs: self.costs,
            net,
            net_return: (notional > 0.0).then(|| net / notional),
            mae: self.adverse as f64 / NANOS_PER_POINT,
            mfe: self.favourable as f64 / NANOS_PER_POINT,
            bars_held: self.bars,
        }
    }
}

/// Returns the order that made a position, as far as the position and its row still depend on it.
fn order_behind(from: &OpenPosition, symbol: u32) -> Placed {
    Placed {
        armed: Armed {
            symbol,
            // The session has closed: no session to come is the one of the entry.
            session: usize::MAX,
            decision_time: from.decision_time,
            direction: from.direction,
            modal_price: from.modal_price,
            modal_tied: from.modal_tied,
            modal_position: from.modal_position,
            volume_ratio: from.volume_ratio,
            rank: from.rank,
            momentum: from.momentum,
            strength: from.strength,
            hours_end: NEVER,
            new_york_hour: from.new_york_hour,
        },
        trade_id: from.trade_id,
        confirmed_time: from.confirmed_time,
        reference: from.entry_price,
        limit: None,
        quantity: from.quantity,
        stop_distance: (from.entry_price - from.initial_stop).abs(),
        target_distance: (from.target - from.entry_price).abs(),
        sigma: Sigma {
            hold: from.sigma_hold,
            source: from.sigma_source,
        },
        assessment: Assessment {
            context: from.context,
            multiplier: from.multiplier,
            posterior: None,
        },
        deadline: Deadline {
            time: NEVER,
            class: 0,
            reason: "filled",
        },
        is_new: false,
    }
}

/// What an exit needs at hand.
#[derive(Debug)]
pub struct Trading<'a> {
    /// Settings.
    pub config: &'a Config,
    /// Instrument.
    pub instrument: &'a Instrument,
    /// How far beyond a target the price must go, in 1e-9.
    pub through: i64,
    /// Money of the exits, in their order.
    pub proceeds: &'a mut Vec<Proceeds>,
}

/// Returns the costs of one side, in USD.
#[must_use]
pub fn cost(config: &Config, instrument: &Instrument, quantity: i64) -> f64 {
    let tick_value = instrument.tick_nanos as f64 / NANOS_PER_POINT * instrument.point_value;
    let per_contract = instrument.commission + config.costs.slippage_ticks * tick_value;
    per_contract * quantity as f64
}
