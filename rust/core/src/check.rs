//! What the engine refuses. Invariant: a bar is checked whole before it changes anything, by the
//! same rules whether it comes alone or in a batch.

use crate::bar::{BarInput, PRICE_LIMIT_NANOS, VOLUME_LIMIT};
use crate::error::DataError;
use crate::instrument::{Divisor, NANOS_PER_POINT};
use crate::session::Sessions;

/// Databento's undefined price.
const UNDEFINED_PRICE: i64 = i64::MAX;

/// Widest bar in ticks.
const MAX_RANGE_TICKS: i64 = 1 << 20;

/// What the checks rest on and never changes.
#[derive(Clone, Debug)]
pub struct Limits {
    interval: i64,
    on_interval: Divisor,
    tick: i64,
    on_tick: Divisor,
    lowest_price: i64,
    widest: i64,
}

/// Where a bar stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a session.
    Session(usize),
    /// Outside every session: left out.
    Outside,
    /// Without volume: removed before every other check.
    Empty,
}

/// What the checks remember of the bars before.
#[derive(Clone, Debug)]
pub struct Checker {
    last_start: i64,
    last_context_start: i64,
    earliest: i64,
    session: usize,
    session_close: i64,
    symbol: Option<(usize, u32)>,
}

impl Limits {
    /// Returns the limits of an instrument and an interval.
    #[must_use]
    pub fn new(interval: i64, tick: i64, check_tick: bool, allow_negative: bool) -> Self {
        Self {
            interval,
            on_interval: Divisor::new(interval),
            tick,
            on_tick: Divisor::new(if check_tick { tick } else { 1 }),
            lowest_price: if allow_negative {
                -PRICE_LIMIT_NANOS + 1
            } else {
                1
            },
            widest: tick.saturating_mul(MAX_RANGE_TICKS).min(PRICE_LIMIT_NANOS),
        }
    }

    /// Returns whether the prices and the volume of a bar need no word of refusal.
    #[inline]
    #[must_use]
    pub fn accepts(&self, bar: &BarInput) -> bool {
        // This runs for every bar, so it is written to need few instructions: what must not be
        // negative is gathered into one sign, and a multiple is told by the largest of its keys.
        let bounded = (bar.low >= self.lowest_price) & (bar.high < PRICE_LIMIT_NANOS);
        let signs = bar.open.wrapping_sub(bar.low)
            | bar.close.wrapping_sub(bar.low)
            | bar.high.wrapping_sub(bar.open)
            | bar.high.wrapping_sub(bar.close)
            | self.widest.wrapping_sub(bar.high.wrapping_sub(bar.low));
        let counted = (bar.volume as u64) < VOLUME_LIMIT as u64;
        let low_or_high = self.on_tick.key(bar.low).max(self.on_tick.key(bar.high));
        let open_or_close = self.on_tick.key(bar.open).max(self.on_tick.key(bar.close));
        let on_grids = (low_or_high.max(open_or_close) <= self.on_tick.limit())
            & self.on_interval.divides(bar.start);
        bounded & (signs >= 0) & counted & on_grids
    }

    /// Names the first thing wrong with a bar on its own.
    fn refuse(&self, row: usize, bar: &BarInput) -> DataError {
        let error = |column, problem: &str, found: String, expected: String| DataError {
            row,
            column,
            problem: problem.to_owned(),
            found,
            expected,
        };
        if bar.volume < 0 {
            return error(
                "volume",
                "negative volume",
                bar.volume.to_string(),
                "0 or more".to_owned(),
            );
        }
        if bar.volume >= VOLUME_LIMIT {
            return error(
                "volume",
                "volume too large",
                bar.volume.to_string(),
                format!("below {VOLUME_LIMIT}"),
            );
        }
        if !self.on_interval.divides(bar.start) {
            let expected = format!("a multiple of {} ns", self.interval);
            return error(
                "ts_event",
                "not on the grid of the interval",
                format!("{} ns", bar.start),
                expected,
            );
        }
        let prices = [
            ("open", bar.open),
            ("high", bar.high),
            ("low", bar.low),
            ("close", bar.close),
        ];
        for (column, price) in prices {
            if price == UNDEFINED_PRICE {
                return error(
                    column,
                    "undefined price",
                    "UNDEF_PRICE".to_owned(),
                    "a price".to_owned(),
                );
            }
            if price < self.lowest_price {
                let expected = "a price above 0, or instrument.allow_negative".to_owned();
                return error(column, "price not allowed", points(price), expected);
            }
            if price >= PRICE_LIMIT_NANOS {
                return error(
                    column,
                    "price too large",
                    points(price),
                    format!("below {}", points(PRICE_LIMIT_NANOS)),
                );
            }
        }
        if bar.high < bar.open.max(bar.close) {
            let expected = format!("at least {}", points(bar.open.max(bar.close)));
            return error(
                "high",
                "high below open or close",
                points(bar.high),
                expected,
            );
        }
        if bar.low > bar.open.min(bar.close) {
            let expected = format!("at most {}", points(bar.open.min(bar.close)));
            return error("low", "low above open or close", points(bar.low), expected);
        }
        for (column, price) in prices {
            if !self.on_tick.divides(price) {
                let expected = format!(
                    "a multiple of {}, or instrument.check_tick = false",
                    points(self.tick)
                );
                return error(column, "price off the tick grid", points(price), expected);
            }
        }
        error(
            "high",
            "bar too wide",
            points(bar.high - bar.low),
            format!("at most {}", points(self.widest)),
        )
    }
}

/// Returns a price in points, as text.
fn points(nanos: i64) -> String {
    format!("{}", nanos as f64 / NANOS_PER_POINT)
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            last_start: i64::MIN,
            last_context_start: i64::MIN,
            earliest: i64::MIN,
            session: 0,
            session_close: i64::MIN,
            symbol: None,
        }
    }
}

impl Checker {
    /// Refuses bars that end at or before this time from now on.
    pub fn advance(&mut self, time: i64) {
        self.earliest = self.earliest.max(time);
    }

    /// Returns the last time at or before which no bar may start.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.last_start.max(self.earliest.saturating_sub(1))
    }

    /// Remembers the start of a bar of the session under way that needed no further check.
    pub fn saw(&mut self, start: i64) {
        self.last_start = start;
        self.last_context_start = i64::MIN;
    }

    /// Forgets which symbol the session has.
    pub fn forget_symbol(&mut self) {
        self.symbol = None;
    }

    /// Checks the next bar.
    ///
    /// # Errors
    /// The first thing wrong with it.
    #[inline]
    pub fn check(
        &mut self,
        row: usize,
        bar: &BarInput,
        symbol: u32,
        limits: &Limits,
        sessions: &Sessions,
    ) -> Result<Place, DataError> {
        if bar.volume == 0 {
            return Ok(Place::Empty);
        }
        if !limits.accepts(bar) {
            return Err(limits.refuse(row, bar));
        }
        if bar.start <= self.last_start {
            return Err(self.out_of_order(row, bar, self.last_start));
        }
        if bar.start < self.earliest {
            return Err(self.out_of_order(row, bar, self.earliest - 1));
        }
        self.last_start = bar.start;
        self.last_context_start = i64::MIN;
        if bar.start >= self.session_close {
            let Some(session) = sessions.holding_from(self.session, bar.start) else {
                return Ok(Place::Outside);
            };
            self.enter_session(row, session, limits, sessions)?;
        }
        self.check_symbol(row, self.session, symbol)?;
        Ok(Place::Session(self.session))
    }

    /// Checks the next context bar, which is exempt from the order of the others.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn check_context(
        &mut self,
        row: usize,
        bar: &BarInput,
        limits: &Limits,
        sessions: &Sessions,
    ) -> Result<Place, DataError> {
        if bar.volume == 0 {
            return Ok(Place::Empty);
        }
        if !limits.accepts(bar) {
            return Err(limits.refuse(row, bar));
        }
        if bar.start <= self.last_context_start {
            return Err(self.out_of_order(row, bar, self.last_context_start));
        }
        self.last_context_start = bar.start;
        Ok(sessions
            .holding(bar.start)
            .map_or(Place::Outside, Place::Session))
    }

    fn enter_session(
        &mut self,
        row: usize,
        session: usize,
        limits: &Limits,
        sessions: &Sessions,
    ) -> Result<(), DataError> {
        let table = sessions.all();
        let open = table[session].open;
        if !limits.on_interval.divides(open) {
            return Err(DataError {
                row,
                column: "ts_event",
                problem: "the session opens off the grid of the interval; use session.day = \"utc\" or shorter bars".to_owned(),
                found: format!("open at {open} ns"),
                expected: format!("a multiple of {} ns", limits.interval),
            });
        }
        self.session = session;
        self.session_close = table[session].close;
        Ok(())
    }

    #[inline]
    fn check_symbol(&mut self, row: usize, session: usize, symbol: u32) -> Result<(), DataError> {
        match self.symbol {
            Some((known, other)) if known == session && other != symbol => Err(DataError {
                row,
                column: "symbol",
                problem: "more than one symbol in one session; choose one, or a front contract"
                    .to_owned(),
                found: format!("symbol {symbol}"),
                expected: format!("symbol {other}"),
            }),
            _ => {
                self.symbol = Some((session, symbol));
                Ok(())
            }
        }
    }

    #[cold]
    fn out_of_order(&self, row: usize, bar: &BarInput, after: i64) -> DataError {
        DataError {
            row,
            column: "ts_event",
            problem: "not after the bar before it, or in an interval that was closed".to_owned(),
            found: format!("{} ns", bar.start),
            expected: format!("after {after} ns"),
        }
    }
}
