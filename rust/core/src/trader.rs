//! From armed signals to trades: retest, order, entry, exit, money. Invariant: nothing here knows
//! which detector armed the signal.

use crate::account::Account;
use crate::bar::{BarInput, MINUTE_NS, Tape};
use crate::carry::Carried;
use crate::config::{Config, EntryMode, LearningSettings, Opposite, RetestTest, Trailing};
use crate::detector::{NEVER, cooled_down};
use crate::instrument::Instrument;
use crate::learning::{Learning, PastTrade, context};
use crate::order::{Asked, Deadline, Fill, Placed, blocked_row, limit_price, trade_id};
use crate::position::{Position, Proceeds, Trading, cost};
use crate::record::{Event, Order, Signal, Sink};
use crate::signal::{Armed, Direction};
use crate::sizing::{Chain, base_quantity, limited_quantity, stop_ticks, target_ticks};

/// The order of work among what falls due at one instant.
mod class {
    pub(super) const SIGNAL_EXPIRED: u8 = 0;
    pub(super) const ORDER_EXPIRED: u8 = 1;
    pub(super) const SIGNAL_HOURS: u8 = 2;
    pub(super) const ORDER_HOURS: u8 = 3;
    pub(super) const ORDER_SESSION: u8 = 4;
    pub(super) const SIGNAL_SESSION: u8 = 5;
}

/// The configuration of trading in ns and 1e-9.
#[derive(Clone, Debug)]
struct Rules {
    interval: i64,
    tolerance: i64,
    timeout: i64,
    max_wait: i64,
    validity: Option<i64>,
    flatten: i64,
    max_hold: i64,
    cooldown: i64,
    through: i64,
    chain: Chain,
}

/// A signal that waits for its retest.
#[derive(Clone, Debug)]
struct Pending {
    armed: Armed,
    deadline: Deadline,
}

/// What becomes of a confirmed signal.
enum Outcome {
    /// An order.
    Order(Box<Placed>),
    /// The row of an order that was blocked.
    Blocked(Box<Order>),
    /// No order, and why.
    Nothing(&'static str),
}

/// What trading looks at but does not own.
#[derive(Clone, Copy, Debug)]
pub struct Market<'a> {
    /// Settings.
    pub config: &'a Config,
    /// Identity of the settings.
    pub config_id: &'a str,
    /// Instrument.
    pub instrument: &'a Instrument,
    /// Bars that have ended.
    pub tape: &'a Tape,
    /// First bar on the tape of the current symbol.
    pub symbol_first: usize,
    /// Name of the current symbol.
    pub symbol_name: &'a str,
    /// Index of the session.
    pub session: usize,
    /// Close of the session.
    pub session_close: i64,
}

/// Everything that follows a signal.
#[derive(Clone, Debug)]
pub struct Trader {
    rules: Rules,
    pending: Vec<Pending>,
    orders: Vec<Placed>,
    positions: Vec<Position>,
    proceeds: Vec<Proceeds>,
    /// Trades whose result waits for the end of the bar.
    finished: Vec<PastTrade>,
    account: Account,
    learning: Learning,
    last_confirmed: Option<i64>,
    entered: i64,
    last_close: i64,
    last_end: i64,
    last_mark: Option<i64>,
    /// Whether a position was open at any time during the bar under way.
    was_open: bool,
}

impl Trader {
    /// Returns a trader with the configured balance.
    #[must_use]
    pub fn new(config: &Config, instrument: &Instrument, interval: i64) -> Self {
        let minutes = |minutes: i64| minutes * MINUTE_NS;
        Self {
            rules: Rules {
                interval,
                tolerance: config.retest.tolerance.in_nanos(instrument.tick_nanos),
                timeout: minutes(config.retest.timeout_minutes),
                max_wait: minutes(config.entry.max_wait_minutes),
                validity: config.entry.validity_minutes.map(minutes),
                flatten: minutes(config.exit.flatten_minutes),
                max_hold: minutes(config.exit.max_hold_minutes),
                cooldown: minutes(config.rank.cooldown_minutes),
                through: config.exit.target_through_ticks * instrument.tick_nanos,
                chain: Chain::new(config, interval),
            },
            pending: Vec::new(),
            orders: Vec::new(),
            positions: Vec::new(),
            proceeds: Vec::new(),
            finished: Vec::new(),
            account: Account::new(config.account.balance),
            learning: Learning::default(),
            last_confirmed: None,
            entered: 0,
            last_close: 0,
            last_end: 0,
            last_mark: None,
            was_open: false,
        }
    }

    /// Returns how many bars of the tape trading can look at.
    #[must_use]
    pub fn reach(config: &Config, interval: i64) -> usize {
        Chain::new(config, interval)
            .reach()
            .max(config.exit.trailing_bars as usize)
    }

    /// Returns whether a bar can only move the last price.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.orders.is_empty() && self.positions.is_empty()
    }

    /// Returns when the last signal was confirmed.
    #[must_use]
    pub fn last_confirmed(&self) -> Option<i64> {
        self.last_confirmed
    }

    /// Returns the end of the last bar.
    #[must_use]
    pub fn last_end(&self) -> i64 {
        self.last_end
    }

    /// Returns how many signals and orders wait, and how many positions are open.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize, usize) {
        (self.pending.len(), self.orders.len(), self.positions.len())
    }

    /// Returns when the next signal or order falls due.
    #[must_use]
    pub fn due(&self) -> i64 {
        let signals = self.pending.iter().map(|pending| pending.deadline.time);
        let orders = self.orders.iter().map(|order| order.deadline.time);
        signals.chain(orders).min().unwrap_or(NEVER)
    }

    /// Begins a session: positions of another symbol leave at their last price.
    pub fn open_session(&mut self, time: i64, market: Market, sink: &mut dyn Sink) {
        self.entered = 0;
        let open_result = self.open_result(market.instrument);
        self.account
            .open_session(market.config, time, open_result, sink);
    }

    /// Books positions of a contract that was left at its last price.
    pub fn leave_stale(&mut self, config: &Config, instrument: &Instrument, sink: &mut dyn Sink) {
        if self.positions.is_empty() {
            return;
        }
        let (close, end) = (self.last_close, self.last_end);
        let mut trading = Trading {
            config,
            instrument,
            through: self.rules.through,
            proceeds: &mut self.proceeds,
        };
        for position in &mut self.positions {
            position.leave_stale(close, end, &mut trading);
        }
        self.sweep(instrument, sink);
        self.settle(&config.learning);
        // A loss of the old session: what it pauses is served when the next one opens.
        self.account.limit(config, end, sink);
    }

    /// Marks the account at the end of a session.
    pub fn close_session(&mut self, time: i64, instrument: &Instrument, sink: &mut dyn Sink) {
        if self.last_mark != Some(time) {
            self.mark(time, instrument, sink);
        }
    }

    /// Takes an armed signal. `bar` is the bar that ended at its decision, when one did.
    pub fn arm(
        &mut self,
        armed: Armed,
        bar: Option<&BarInput>,
        actionable: bool,
        market: Market,
        sink: &mut dyn Sink,
    ) {
        let decision_time = armed.decision_time;
        sink.take(Event::Armed(signal_row(
            &armed,
            None,
            decision_time,
            "armed",
        )));
        if !market.config.retest.enabled {
            self.confirm(armed, decision_time, bar, actionable, market, sink);
            return;
        }
        let deadlines = [
            Deadline {
                time: decision_time + self.rules.timeout,
                class: class::SIGNAL_EXPIRED,
                reason: "expired",
            },
            Deadline {
                time: armed.hours_end,
                class: class::SIGNAL_HOURS,
                reason: "hours",
            },
            Deadline {
                time: market.session_close,
                class: class::SIGNAL_SESSION,
                reason: "session",
            },
        ];
        let deadline = deadlines.into_iter().min().unwrap_or(deadlines[2]);
        let place = self
            .pending
            .partition_point(|pending| pending.armed.decision_time <= decision_time);
        self.pending.insert(place, Pending { armed, deadline });
    }

    /// Ends what falls due at an instant without a bar, in the order of work.
    pub fn fall_due(&mut self, time: i64, config: &Config, sink: &mut dyn Sink) {
        self.expire(class::SIGNAL_EXPIRED, time, sink);
        self.drop_due(class::ORDER_EXPIRED, time, config, sink);
        self.expire(class::SIGNAL_HOURS, time, sink);
        self.drop_due(class::ORDER_HOURS, time, config, sink);
        self.drop_due(class::ORDER_SESSION, time, config, sink);
        self.expire(class::SIGNAL_SESSION, time, sink);
    }

    fn expire(&mut self, class: u8, time: i64, sink: &mut dyn Sink) {
        self.pending.retain(|pending| {
            let due = pending.deadline.class == class && pending.deadline.time <= time;
            if due {
                let reason = pending.deadline.reason;
                sink.take(Event::Signal(signal_row(
                    &pending.armed,
                    None,
                    time,
                    reason,
                )));
            }
            !due
        });
    }

    fn drop_due(&mut self, class: u8, time: i64, config: &Config, sink: &mut dyn Sink) {
        self.drop_orders(time, config, sink, |order| {
            (order.deadline.class == class && order.deadline.time <= time)
                .then_some(order.deadline.reason)
        });
    }

    fn drop_orders(
        &mut self,
        time: i64,
        config: &Config,
        sink: &mut dyn Sink,
        reason: impl Fn(&Placed) -> Option<&'static str>,
    ) {
        self.orders.retain(|order| match reason(order) {
            Some(reason) => {
                sink.take(Event::Order(order.row(config, None, time, reason)));
                false
            }
            None => true,
        });
    }

    /// Works at the open of a bar: gapped exits, then entries.
    pub fn at_open(&mut self, bar: &BarInput, market: Market, sink: &mut dyn Sink) {
        self.was_open = !self.positions.is_empty();
        let mut trading = Trading {
            config: market.config,
            instrument: market.instrument,
            through: self.rules.through,
            proceeds: &mut self.proceeds,
        };
        for position in &mut self.positions {
            position.begin_bar();
            if position.order().armed.session == market.session {
                position.at_open(bar, &mut trading);
            } else {
                position.leave(bar.open, bar.start, "session_end_late", &mut trading);
            }
        }
        self.sweep(market.instrument, sink);
        self.fill_orders(bar, market, sink, |order| {
            order.fill_at_open(bar, market.config, market.instrument)
        });
        for order in &mut self.orders {
            order.is_new = false;
        }
    }

    /// Works inside a bar: exits, then limit fills and their stop.
    pub fn inside(&mut self, bar: &BarInput, market: Market, sink: &mut dyn Sink) {
        let end = bar.start + self.rules.interval;
        let mut trading = Trading {
            config: market.config,
            instrument: market.instrument,
            through: self.rules.through,
            proceeds: &mut self.proceeds,
        };
        for position in &mut self.positions {
            position.inside(bar, end, &mut trading);
        }
        self.sweep(market.instrument, sink);
        self.fill_orders(bar, market, sink, |order| {
            order.fill_inside(bar, market.config, market.instrument)
        });
    }

    fn fill_orders(
        &mut self,
        bar: &BarInput,
        market: Market,
        sink: &mut dyn Sink,
        fill: impl Fn(&Placed) -> Option<Fill>,
    ) {
        let mut index = 0;
        while index < self.orders.len() {
            match fill(&self.orders[index]) {
                None => index += 1,
                Some(Fill::AtOpen(price)) => {
                    let order = self.orders.remove(index);
                    self.enter(order, bar.start, price, false, market, sink);
                }
                Some(Fill::Inside(price)) => {
                    let order = self.orders.remove(index);
                    let end = bar.start + self.rules.interval;
                    let place = self.enter(order, end, price, true, market, sink);
                    let mut trading = Trading {
                        config: market.config,
                        instrument: market.instrument,
                        through: self.rules.through,
                        proceeds: &mut self.proceeds,
                    };
                    self.positions[place].inside_after_fill(bar, end, &mut trading);
                    self.sweep(market.instrument, sink);
                }
            }
        }
    }

    /// Opens a position and returns its place.
    fn enter(
        &mut self,
        order: Placed,
        time: i64,
        price: i64,
        inside: bool,
        market: Market,
        sink: &mut dyn Sink,
    ) -> usize {
        let Market {
            config, instrument, ..
        } = market;
        if config.risk.opposite == Opposite::Reverse {
            let mut trading = Trading {
                config,
                instrument,
                through: self.rules.through,
                proceeds: &mut self.proceeds,
            };
            for position in &mut self.positions {
                if position.direction() != order.armed.direction {
                    position.leave(price, time, "reverse", &mut trading);
                }
            }
            self.sweep(instrument, sink);
        }
        self.was_open = true;
        self.entered += 1;
        self.account.book(-cost(config, instrument, order.quantity));
        sink.take(Event::Order(order.row(
            config,
            Some((time, price)),
            time,
            "filled",
        )));
        let decision_time = order.armed.decision_time;
        let place = self
            .positions
            .partition_point(|position| position.order().armed.decision_time <= decision_time);
        self.positions.insert(
            place,
            Position::new(order, config, instrument, time, price, inside),
        );
        place
    }

    /// Takes closed positions off the list and writes their rows.
    fn sweep(&mut self, instrument: &Instrument, sink: &mut dyn Sink) {
        if self.proceeds.is_empty() {
            return;
        }
        let finished = &mut self.finished;
        self.positions.retain(|position| {
            if !position.is_closed() {
                return true;
            }
            let trade = position.trade(instrument);
            finished.push(PastTrade {
                exit_time: trade.exit_time,
                modal_position: trade.modal_position,
                net: trade.net,
                // Without notional there is no return, and nothing to learn from its size.
                net_return: trade.net_return.unwrap_or(0.0),
                new_york_hour: position.order().armed.new_york_hour,
                rank: trade.rank,
            });
            sink.take(Event::Trade(trade));
            false
        });
    }

    /// Books what left, and lets the records learn from it.
    fn settle(&mut self, settings: &LearningSettings) {
        for proceeds in self.proceeds.drain(..) {
            self.account.book(proceeds.gross - proceeds.costs);
        }
        for trade in self.finished.drain(..) {
            self.account.count(trade.net);
            self.learning.remember(settings, trade);
        }
    }

    fn open_result(&self, instrument: &Instrument) -> f64 {
        self.positions
            .iter()
            .map(|position| position.open_result(self.last_close, instrument))
            .fold(0.0, |sum, result| sum + result)
    }

    fn open_contracts(&self) -> i64 {
        self.positions.iter().map(Position::open).sum()
    }

    fn mark(&mut self, time: i64, instrument: &Instrument, sink: &mut dyn Sink) {
        let (result, contracts) = (self.open_result(instrument), self.open_contracts());
        self.account.mark(time, result, contracts, sink);
        self.last_mark = Some(time);
    }

    /// Takes the last price of a bar in which nothing is pending, working or open.
    #[inline]
    pub fn pass(&mut self, bar: &BarInput) {
        self.last_close = bar.close;
        self.last_end = bar.start + self.rules.interval;
    }

    /// Works at the end of a bar: exits, account, learning, mark, limits, trailing.
    pub fn at_end(&mut self, bar: &BarInput, market: Market, sink: &mut dyn Sink) {
        self.pass(bar);
        let Market {
            config, instrument, ..
        } = market;
        let end = self.last_end;
        let flatten_time = market.session_close - self.rules.flatten;
        let mut trading = Trading {
            config,
            instrument,
            through: self.rules.through,
            proceeds: &mut self.proceeds,
        };
        for position in &mut self.positions {
            position.live_through(bar);
            if let Some(reason) = position.ends_with(end, flatten_time, self.rules.max_hold) {
                position.leave(bar.close, end, reason, &mut trading);
            }
        }
        self.sweep(instrument, sink);
        self.settle(&config.learning);
        if std::mem::take(&mut self.was_open) {
            self.mark(end, instrument, sink);
            if let Some(reason) = self.account.limit(config, end, sink) {
                self.drop_orders(end, config, sink, |_| Some(reason));
            }
        }
        if config.exit.trailing != Trailing::Off {
            for position in &mut self.positions {
                position.trail(
                    market.tape,
                    market.symbol_first,
                    config,
                    instrument.tick_nanos,
                );
            }
        }
    }

    /// Confirms the signals whose retest this bar is, oldest first.
    pub fn retest(
        &mut self,
        bar: &BarInput,
        actionable: bool,
        market: Market,
        sink: &mut dyn Sink,
    ) {
        let mut index = 0;
        while index < self.pending.len() {
            let modal = self.pending[index].armed.modal_price;
            if is_retest(market.config.retest.test, bar, modal, self.rules.tolerance) {
                let pending = self.pending.remove(index);
                let end = bar.start + self.rules.interval;
                self.confirm(pending.armed, end, Some(bar), actionable, market, sink);
            } else {
                index += 1;
            }
        }
    }

    fn confirm(
        &mut self,
        armed: Armed,
        time: i64,
        bar: Option<&BarInput>,
        actionable: bool,
        market: Market,
        sink: &mut dyn Sink,
    ) {
        if !cooled_down(self.last_confirmed, time, self.rules.cooldown) {
            sink.take(Event::Signal(signal_row(&armed, None, time, "cooldown")));
            return;
        }
        self.last_confirmed = Some(time);
        let flatten_time = market.session_close - self.rules.flatten;
        let outcome = match bar {
            _ if time >= flatten_time => Outcome::Nothing("session"),
            None => Outcome::Nothing("no_bar"),
            Some(bar) => self.place(&armed, time, bar, actionable, market),
        };
        let reason = match &outcome {
            Outcome::Order(_) => "ordered",
            Outcome::Blocked(_) => "blocked",
            Outcome::Nothing(reason) => reason,
        };
        sink.take(Event::Signal(signal_row(&armed, Some(time), time, reason)));
        match outcome {
            Outcome::Order(order) => self.work(*order, market, sink),
            Outcome::Blocked(row) => sink.take(Event::Order(*row)),
            Outcome::Nothing(_) => {}
        }
    }

    /// Makes the order of a confirmed signal, or tells why there is none.
    fn place(
        &mut self,
        armed: &Armed,
        time: i64,
        bar: &BarInput,
        actionable: bool,
        market: Market,
    ) -> Outcome {
        let Market {
            config, instrument, ..
        } = market;
        let tick = instrument.tick_nanos;
        let limit = limit_price(config, armed, bar.close, tick);
        let reference = limit.unwrap_or(bar.close);
        let deadline = self.order_deadline(armed, time, market);
        let trade_id = trade_id(market.symbol_name, armed.decision_time, market.config_id);
        if let Some(reason) = self.gate(armed.direction, config) {
            let asked = Asked {
                confirmed_time: time,
                reference,
                limit,
                valid_until: deadline.time,
            };
            return Outcome::Blocked(Box::new(blocked_row(
                armed, trade_id, config, asked, time, reason,
            )));
        }
        let sigma = self
            .rules
            .chain
            .sigma(market.tape, market.symbol_first, reference);
        let stop = stop_ticks(config, sigma, reference, tick);
        let assessment =
            self.learning
                .assess(&config.learning, context(&config.learning, armed), time);
        let mut order = Placed {
            armed: armed.clone(),
            trade_id,
            confirmed_time: time,
            reference,
            limit,
            quantity: base_quantity(config, armed.strength, assessment.multiplier),
            stop_distance: stop * tick,
            target_distance: target_ticks(config, stop, tick) * tick,
            sigma,
            assessment,
            deadline,
            is_new: true,
        };
        let equity = self.account.last_mark();
        let limited = limited_quantity(
            config,
            instrument,
            order.quantity,
            equity,
            order.stop_distance,
        )
        .and_then(|quantity| self.within_open_contracts(quantity, armed.direction, config));
        match limited {
            Ok(_) if !actionable => Outcome::Nothing("missed"),
            Ok(quantity) => {
                order.quantity = quantity;
                Outcome::Order(Box::new(order))
            }
            Err(reason) => {
                order.quantity = 0;
                Outcome::Blocked(Box::new(order.row(config, None, time, reason)))
            }
        }
    }

    fn order_deadline(&self, armed: &Armed, time: i64, market: Market) -> Deadline {
        let own = match market.config.entry.mode {
            EntryMode::NextOpen => Deadline {
                time: time + self.rules.max_wait,
                class: class::ORDER_EXPIRED,
                reason: "no_bar",
            },
            EntryMode::Limit => Deadline {
                time: self
                    .rules
                    .validity
                    .map_or(NEVER, |validity| time + validity),
                class: class::ORDER_EXPIRED,
                reason: "expired",
            },
            // It fills at once.
            EntryMode::Close => Deadline {
                time: NEVER,
                class: class::ORDER_EXPIRED,
                reason: "expired",
            },
        };
        let hours = Deadline {
            time: armed.hours_end,
            class: class::ORDER_HOURS,
            reason: "hours",
        };
        let session = Deadline {
            time: market.session_close - self.rules.flatten,
            class: class::ORDER_SESSION,
            reason: "session",
        };
        own.min(hours).min(session)
    }

    /// Returns what blocks an order before its size is known.
    fn gate(&self, direction: Direction, config: &Config) -> Option<&'static str> {
        if let Some(block) = self.account.block() {
            return Some(block);
        }
        let trades = self.entered + self.orders.len() as i64;
        if config
            .risk
            .max_trades_per_session
            .is_some_and(|most| trades >= most)
        {
            return Some("max_trades_per_session");
        }
        let opposite = self
            .positions
            .iter()
            .any(|position| position.direction() != direction)
            || self
                .orders
                .iter()
                .any(|order| order.armed.direction != direction);
        (opposite && config.risk.opposite == Opposite::Block).then_some("opposite_open")
    }

    fn within_open_contracts(
        &self,
        quantity: i64,
        direction: Direction,
        config: &Config,
    ) -> Result<i64, &'static str> {
        let Some(most) = config.risk.max_open_contracts else {
            return Ok(quantity);
        };
        let counts =
            |other: Direction| config.risk.opposite != Opposite::Reverse || other == direction;
        let open: i64 = self
            .positions
            .iter()
            .filter(|position| counts(position.direction()))
            .map(Position::open)
            .sum();
        let working: i64 = self
            .orders
            .iter()
            .filter(|order| counts(order.armed.direction))
            .map(|order| order.quantity)
            .sum();
        match most - open - working {
            left if left > 0 => Ok(quantity.min(left)),
            _ => Err("max_open_contracts"),
        }
    }

    /// Puts an order to work, or fills it at once at a price nobody can have.
    fn work(&mut self, order: Placed, market: Market, sink: &mut dyn Sink) {
        let Market { config, .. } = market;
        let direction = order.armed.direction;
        let time = order.confirmed_time;
        if config.risk.opposite == Opposite::Reverse {
            self.drop_orders(time, config, sink, |working| {
                (working.armed.direction != direction).then_some("reverse")
            });
        }
        sink.take(Event::Working(order.row(config, None, time, "working")));
        if config.entry.mode == EntryMode::Close {
            let price = order.reference;
            self.enter(order, time, price, false, market, sink);
            self.was_open = false;
            self.settle(&config.learning);
            return;
        }
        let decision_time = order.armed.decision_time;
        let place = self
            .orders
            .partition_point(|order| order.armed.decision_time <= decision_time);
        self.orders.insert(place, order);
    }

    /// Ends halt and pause at the operator's word.
    pub fn reset_halt(&mut self, time: i64, instrument: &Instrument, sink: &mut dyn Sink) {
        let open_result = self.open_result(instrument);
        self.account.reset(time, open_result, sink);
    }

    /// Writes the rows of trades that are still open.
    pub fn open_trades(&self, config: &Config, instrument: &Instrument, sink: &mut dyn Sink) {
        for position in &self.positions {
            let trade = position.open_trade(self.last_close, self.last_end, config, instrument);
            sink.take(Event::Trade(trade));
        }
    }

    /// Returns what another engine needs to go on with this account. Nothing may wait.
    #[must_use]
    pub fn carried(&self, root: &str, symbols: &[String]) -> Carried {
        let positions = self.positions.iter();
        Carried {
            account: self.account.clone(),
            last_close: self.last_close,
            last_confirmed: self.last_confirmed,
            last_end: self.last_end,
            past: self.learning.past().to_vec(),
            positions: positions
                .map(|position| position.carried(symbols))
                .collect(),
            root: root.to_owned(),
            version: crate::carry::VERSION,
        }
    }

    /// Returns whether no trade of its own has begun or ended.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_idle() && self.learning.past().is_empty()
    }

    /// Goes on with the account of another engine, whose open positions are of `symbol`.
    pub fn take_over(&mut self, carried: Carried, symbol: u32, settings: &LearningSettings) {
        self.learning = Learning::of(settings, &carried.past);
        self.positions = carried
            .positions
            .into_iter()
            .map(|position| Position::taken_over(position, symbol))
            .collect();
        self.account = carried.account;
        self.last_confirmed = carried.last_confirmed;
        self.last_mark = None;
        self.entered = 0;
        // The bars of this engine may end earlier: other hours, or none seen yet.
        if carried.last_end >= self.last_end {
            self.last_end = carried.last_end;
            self.last_close = carried.last_close;
        }
    }

    /// Says again which signals wait for their retest.
    pub fn pending_signals(&self, sink: &mut dyn Sink) {
        for Pending { armed, .. } in &self.pending {
            let row = signal_row(armed, None, armed.decision_time, "armed");
            sink.take(Event::Armed(row));
        }
    }

    /// Says again which orders work.
    pub fn working_orders(&self, config: &Config, sink: &mut dyn Sink) {
        for order in &self.orders {
            let row = order.row(config, None, order.confirmed_time, "working");
            sink.take(Event::Working(row));
        }
    }
}

/// Returns whether a bar comes back to the modal price.
#[must_use]
#[inline]
pub fn is_retest(test: RetestTest, bar: &BarInput, modal: i64, tolerance: i64) -> bool {
    match test {
        RetestTest::Close => (bar.close - modal).abs() <= tolerance,
        RetestTest::Touch => bar.low - tolerance <= modal && modal <= bar.high + tolerance,
    }
}

fn signal_row(
    armed: &Armed,
    confirmed_time: Option<i64>,
    resolved_time: i64,
    reason: &'static str,
) -> Signal {
    Signal {
        symbol: armed.symbol,
        decision_time: armed.decision_time,
        direction: armed.direction.word(),
        modal_price: armed.modal_price,
        modal_position: armed.modal_position,
        volume_ratio: armed.volume_ratio,
        rank: armed.rank,
        momentum: armed.momentum,
        strength: armed.strength,
        confirmed_time,
        resolved_time,
        reason,
    }
}
