//! The engine: one state machine for backtest and live. Invariant: a bar is processed in the order
//! of work (open, inside, end, then what falls due without a bar), and nothing later is known.

use std::ops::Range;

use crate::bar::BarInput;
use crate::carry::{Carried, refuse};
use crate::check::{Checker, Limits, Place};
use crate::config::{Config, ProfileSource};
use crate::detector::{Detector, Judging, NEVER, WindowCounts};
use crate::error::{ConfigError, DataError, Error};
use crate::instrument::Instrument;
use crate::record::{Frames, Sink};
use crate::replay::{Caused, Kind, LogRows};
use crate::session::{Session, Sessions};
use crate::trader::{Market, Trader};

/// Bars between two looks at whether the caller wants to stop.
const CHUNK: usize = 1 << 16;

/// How many bars went where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarCounts {
    /// Bars of a session.
    pub bars: u64,
    /// Bars that only prepare a roll.
    pub context_bars: u64,
    /// Bars without volume, removed.
    pub zero_volume: u64,
    /// Bars outside every session, left out.
    pub outside_session: u64,
}

/// Bars as columns; all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Starts in ns UTC.
    pub start: &'a [i64],
    /// Opens in 1e-9.
    pub open: &'a [i64],
    /// Highs in 1e-9.
    pub high: &'a [i64],
    /// Lows in 1e-9.
    pub low: &'a [i64],
    /// Closes in 1e-9.
    pub close: &'a [i64],
    /// Contracts.
    pub volume: &'a [i64],
    /// First row and symbol of each stretch of one contract; the first begins at row 0.
    pub stretches: &'a [(usize, u32)],
    /// Rows that only prepare a roll.
    pub context: Option<&'a [bool]>,
    /// Rows that came in time to act on; all when absent.
    pub actionable: Option<&'a [bool]>,
}

impl Columns<'_> {
    #[inline]
    fn bar(&self, row: usize) -> BarInput {
        BarInput {
            start: self.start[row],
            open: self.open[row],
            high: self.high[row],
            low: self.low[row],
            close: self.close[row],
            volume: self.volume[row],
        }
    }

    #[inline]
    fn bars(&self, rows: Range<usize>) -> impl ExactSizeIterator<Item = BarInput> {
        let (open, high) = (&self.open[rows.clone()], &self.high[rows.clone()]);
        let (low, close) = (&self.low[rows.clone()], &self.close[rows.clone()]);
        let prices = open.iter().zip(high).zip(low).zip(close);
        let (start, volume) = (&self.start[rows.clone()], &self.volume[rows]);
        let bars = start.iter().zip(prices).zip(volume);
        bars.map(
            |((&start, (((&open, &high), &low), &close)), &volume)| BarInput {
                start,
                open,
                high,
                low,
                close,
                volume,
            },
        )
    }

    pub(crate) fn check_lengths(&self) -> Result<(), DataError> {
        let rows = self.start.len();
        let lengths = [
            ("open", self.open.len()),
            ("high", self.high.len()),
            ("low", self.low.len()),
            ("close", self.close.len()),
            ("volume", self.volume.len()),
            ("context", self.context.map_or(rows, <[bool]>::len)),
            ("actionable", self.actionable.map_or(rows, <[bool]>::len)),
        ];
        for (column, length) in lengths {
            if length != rows {
                return Err(DataError {
                    row: length.min(rows),
                    column,
                    problem: "columns differ in length".to_owned(),
                    found: length.to_string(),
                    expected: rows.to_string(),
                });
            }
        }
        let ordered = self.stretches.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if rows > 0 && !(ordered && self.stretches.first().is_some_and(|stretch| stretch.0 == 0)) {
            return Err(DataError {
                row: 0,
                column: "symbol",
                problem: "stretches of symbols do not cover the rows".to_owned(),
                found: format!("{} stretches", self.stretches.len()),
                expected: "the first at row 0, ascending".to_owned(),
            });
        }
        Ok(())
    }
}

/// What changes as bars come.
#[derive(Clone, Debug)]
struct State {
    checker: Checker,
    detector: Detector,
    trader: Trader,
    counts: BarCounts,
    symbol: Option<u32>,
    in_context: bool,
    /// Instant of the next thing that falls due.
    next_due: i64,
    /// Close of the session under way, or the distant past.
    session_close: i64,
    /// End of the bar that holds that close: until then the session has bars.
    session_end: i64,
    advanced: i64,
}

/// What never changes.
#[derive(Clone, Debug)]
struct Rules {
    config: Config,
    config_id: String,
    instrument: Instrument,
    limits: Limits,
    interval: i64,
    keeps_trades: bool,
}

/// The engine.
///
/// `run` over many bars is a fold of `step` over one.
#[derive(Clone, Debug)]
pub struct Engine {
    rules: Rules,
    sessions: Sessions,
    symbols: Vec<String>,
    state: State,
}

/// A bar with what is said about it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The bar.
    pub bar: BarInput,
    /// Symbol, from [`Engine::symbol`].
    pub symbol: u32,
    /// Whether it came in time to act on.
    pub actionable: bool,
    /// Whether it only prepares a roll.
    pub context: bool,
}

impl Engine {
    /// Returns an engine without memory.
    ///
    /// # Errors
    /// When a window is shorter than a bar, or the instrument's numbers are not usable.
    pub fn new(
        config: Config,
        config_id: String,
        instrument: Instrument,
        sessions: Sessions,
        interval: i64,
    ) -> Result<Self, Error> {
        let instrument = instrument.with(&config.instrument)?;
        if interval <= 0 || config.cluster.minutes * crate::bar::MINUTE_NS < interval {
            return Err(Error::Config(ConfigError {
                field: "cluster.minutes".to_owned(),
                problem: "a window shorter than a bar".to_owned(),
                found: format!("{} minutes, bars of {interval} ns", config.cluster.minutes),
                expected: "at least one bar".to_owned(),
            }));
        }
        let limits = Limits::new(
            interval,
            instrument.tick_nanos,
            config.instrument.check_tick,
            config.instrument.allow_negative,
        );
        let rules = Rules {
            keeps_trades: config.profile.source == ProfileSource::Trades,
            config,
            config_id,
            instrument,
            limits,
            interval,
        };
        let state = State::new(&rules);
        Ok(Self {
            rules,
            sessions,
            symbols: Vec::new(),
            state,
        })
    }

    /// Forgets everything but configuration, sessions and symbols.
    pub fn reset(&mut self) {
        self.state = State::new(&self.rules);
    }

    /// Returns the number of a symbol, new or known.
    pub fn symbol(&mut self, name: &str) -> u32 {
        let known = self.symbols.iter().rposition(|symbol| symbol == name);
        known.unwrap_or_else(|| {
            self.symbols.push(name.to_owned());
            self.symbols.len() - 1
        }) as u32
    }

    /// Returns the names of the symbols.
    #[must_use]
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }

    /// Returns the instrument, as configured.
    #[must_use]
    pub fn instrument(&self) -> &Instrument {
        &self.rules.instrument
    }

    /// Returns how many bars went where.
    #[must_use]
    pub fn bar_counts(&self) -> BarCounts {
        self.state.counts
    }

    /// Returns how many windows ended where.
    #[must_use]
    pub fn window_counts(&self) -> WindowCounts {
        self.state.detector.counts()
    }

    /// Returns how many signals and orders wait, and how many positions are open.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize, usize) {
        self.state.trader.waiting()
    }

    /// Adds sessions to the table.
    ///
    /// # Errors
    /// When they overlap or contradict what is known.
    pub fn extend_sessions(&mut self, sessions: Vec<Session>) -> Result<(), Error> {
        Ok(self.sessions.extend(sessions)?)
    }

    /// Takes one bar.
    ///
    /// # Errors
    /// When the bar is refused; the engine is then as it was.
    pub fn step(&mut self, step: &Step, sink: &mut dyn Sink) -> Result<(), Error> {
        let Self {
            rules,
            sessions,
            symbols,
            state,
        } = self;
        let place = state
            .check(step, &rules.limits, sessions)
            .map_err(|error| named(error, symbols))?;
        state.take(step, place, rules, sessions, symbols, sink);
        Ok(())
    }

    /// Takes many bars. `stop` is asked now and then whether to go on.
    ///
    /// # Errors
    /// When a bar is refused or `stop` says so; the engine is then as it was.
    pub fn run(
        &mut self,
        columns: &Columns,
        frames: &mut Frames,
        mut stop: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        columns.check_lengths()?;
        let Self {
            rules,
            sessions,
            symbols,
            state,
        } = self;
        let before = state.clone();
        let done = state.take_all(columns, rules, sessions, symbols, frames, &mut stop);
        done.map_err(|error| {
            *state = before;
            match error {
                Error::Data(error) => named(error, symbols),
                other => other,
            }
        })
    }

    /// Takes the rows of a log again. `stop` is asked now and then whether to go on.
    ///
    /// # Errors
    /// When a row is refused or `stop` says so; the engine is then as it was.
    pub fn replay(
        &mut self,
        rows: &LogRows,
        caused: &mut Caused,
        mut stop: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        rows.check_lengths()?;
        let before = self.state.clone();
        let done = self.take_log(rows, caused, &mut stop);
        if done.is_err() {
            self.state = before;
        }
        done
    }

    fn take_log(
        &mut self,
        rows: &LogRows,
        caused: &mut Caused,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let columns = &rows.columns;
        let mut next = Stretch::default();
        for row in 0..columns.start.len() {
            if row % CHUNK == 0 && stop() {
                return Err(Error::Interrupted);
            }
            caused.row = row;
            let step = next.step(columns, row);
            match rows.kind(row)? {
                Kind::Bar => {
                    let Self {
                        rules,
                        sessions,
                        symbols,
                        state,
                    } = self;
                    let place = state
                        .place(row, &step, &rules.limits, sessions)
                        .map_err(|error| named(error, symbols))?;
                    state.take(&step, place, rules, sessions, symbols, caused);
                }
                Kind::Trade => self
                    .take_trade(step.bar.start, step.bar.close, step.bar.volume)
                    .map_err(|error| DataError { row, ..error })?,
                Kind::Closed => self.advance(step.bar.start, caused),
            }
        }
        Ok(())
    }

    /// Takes a trade, which comes before the bar that holds it.
    ///
    /// # Errors
    /// When its price or size is not usable, or the bar that holds it was already taken.
    pub fn trade(&mut self, time: i64, price: i64, size: i64) -> Result<(), Error> {
        Ok(self.take_trade(time, price, size)?)
    }

    /// Takes many trades, all or none; times in ns, prices in 1e-9, sizes in contracts.
    ///
    /// # Errors
    /// When the columns differ in length, or a trade is refused as in [`Self::trade`].
    pub fn trades(&mut self, times: &[i64], prices: &[i64], sizes: &[i64]) -> Result<(), Error> {
        for (column, length) in [("price", prices.len()), ("size", sizes.len())] {
            if length != times.len() {
                return Err(Error::Data(DataError {
                    row: length.min(times.len()),
                    column,
                    problem: "columns differ in length".to_owned(),
                    found: length.to_string(),
                    expected: times.len().to_string(),
                }));
            }
        }
        let all = || times.iter().zip(prices).zip(sizes);
        for (row, ((&time, &price), &size)) in all().enumerate() {
            self.check_trade(time, price, size)
                .map_err(|error| DataError { row, ..error })?;
        }
        if self.rules.keeps_trades {
            for ((&time, &price), &size) in all() {
                self.state.detector.push_trade(time, price, size);
            }
        }
        Ok(())
    }

    fn take_trade(&mut self, time: i64, price: i64, size: i64) -> Result<(), DataError> {
        self.check_trade(time, price, size)?;
        if self.rules.keeps_trades {
            self.state.detector.push_trade(time, price, size);
        }
        Ok(())
    }

    fn check_trade(&self, time: i64, price: i64, size: i64) -> Result<(), DataError> {
        let bar = BarInput {
            start: grid_floor(time, self.rules.interval),
            open: price,
            high: price,
            low: price,
            close: price,
            volume: size.max(1),
        };
        let mut checker = self.state.checker.clone();
        checker.forget_symbol();
        let refused = checker.check(0, &bar, 0, &self.rules.limits, &self.sessions);
        refused.map_err(|error| DataError {
            column: if error.column == "open" {
                "price"
            } else {
                error.column
            },
            ..error
        })?;
        if size > 0 {
            return Ok(());
        }
        Err(DataError {
            row: 0,
            column: "size",
            problem: "size not allowed".to_owned(),
            found: size.to_string(),
            expected: "1 or more".to_owned(),
        })
    }

    /// Says that every interval that ends at or before `time` is closed.
    pub fn advance(&mut self, time: i64, sink: &mut dyn Sink) {
        let time = grid_floor(time, self.rules.interval);
        let Self {
            rules,
            sessions: _,
            symbols,
            state,
        } = self;
        state.advance(time, rules, symbols, sink);
    }

    /// Ends halt and pause at the operator's word.
    pub fn reset_halt(&mut self, sink: &mut dyn Sink) {
        let time = self.state.trader.last_end().max(self.state.advanced);
        self.state
            .trader
            .reset_halt(time, &self.rules.instrument, sink);
    }

    /// Closes the last bar's interval and writes the rows of trades that are still open.
    pub fn finish(&mut self, sink: &mut dyn Sink) {
        if self.state.counts.bars > 0 {
            self.advance(self.state.trader.last_end(), sink);
        }
        self.open_trades(sink);
    }

    /// Returns the state of the account as text, for [`Self::take_over`] of another engine.
    ///
    /// # Errors
    /// When a session is under way, or something still waits.
    pub fn account_state(&self) -> Result<String, Error> {
        self.between_sessions()?;
        let trader = &self.state.trader;
        let carried = trader.carried(&self.rules.instrument.root, &self.symbols);
        Ok(carried.write()?)
    }

    /// Goes on with the account of another engine. Bars seen before stay.
    ///
    /// # Errors
    /// When the text is not the state of an account of this instrument, this engine has traded
    /// itself, a session is under way, or open positions are of another contract than the last bar;
    /// the engine is then as it was.
    pub fn take_over(&mut self, text: &str) -> Result<(), Error> {
        self.between_sessions()?;
        if !self.state.trader.is_fresh() {
            let (_, _, open) = self.state.trader.waiting();
            let found = format!("an engine that has traded, {open} positions open");
            let expected = "an engine whose bars were all stepped with actionable=False";
            return Err(refuse(0, "state", "the engine has an account", found, expected).into());
        }
        let carried = Carried::read(text)?;
        let root = &self.rules.instrument.root;
        if carried.root != *root {
            return Err(refuse(0, "root", "another instrument", carried.root, root).into());
        }
        let symbol = self.carried_symbol(&carried)?;
        let learning = &self.rules.config.learning;
        self.state
            .trader
            .take_over(carried, symbol.unwrap_or_default(), learning);
        Ok(())
    }

    /// Returns the number of the contract of the open positions, which must be that of the bars.
    fn carried_symbol(&mut self, carried: &Carried) -> Result<Option<u32>, DataError> {
        let Some(name) = carried.symbol() else {
            return Ok(None);
        };
        let Some(symbol) = self.state.symbol else {
            let symbol = self.symbol(name);
            self.state.symbol = Some(symbol);
            self.state
                .detector
                .change_symbol(symbol, &self.rules.config);
            return Ok(Some(symbol));
        };
        let last = self.symbols.get(symbol as usize).map_or("", String::as_str);
        if last != name {
            let problem = "open positions of another contract than the last bar's";
            return Err(refuse(0, "symbol", problem, name.to_owned(), last));
        }
        Ok(Some(symbol))
    }

    fn between_sessions(&self) -> Result<(), DataError> {
        let (signals, orders, _) = self.state.trader.waiting();
        if self.state.session_end == i64::MIN && signals + orders == 0 {
            return Ok(());
        }
        let problem = "an account changes hands only between sessions";
        let found = format!("a session under way until {} ns", self.state.session_close);
        let expected = "advance() to the session's close before";
        Err(refuse(0, "state", problem, found, expected))
    }

    /// Writes the rows of trades that are open, valued at the last close. Changes nothing.
    pub fn open_trades(&self, sink: &mut dyn Sink) {
        self.state
            .trader
            .open_trades(&self.rules.config, &self.rules.instrument, sink);
    }

    /// Says again which signals wait for their retest. Changes nothing.
    pub fn pending_signals(&self, sink: &mut dyn Sink) {
        self.state.trader.pending_signals(sink);
    }

    /// Says again which orders work. Changes nothing.
    pub fn working_orders(&self, sink: &mut dyn Sink) {
        self.state.trader.working_orders(&self.rules.config, sink);
    }
}

/// Rounds a time down to the grid of the interval; one before every bar stays before every bar.
fn grid_floor(time: i64, interval: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(interval))
}

/// Returns the end of the bar that holds or ends at a time.
fn ceil_to_grid(time: i64, interval: i64) -> i64 {
    -(-time).div_euclid(interval) * interval
}

/// Puts the names of symbols in place of their numbers.
fn named(error: DataError, symbols: &[String]) -> Error {
    if error.column != "symbol" {
        return Error::Data(error);
    }
    let name = |text: &str| {
        let number = text
            .rsplit(' ')
            .next()
            .and_then(|number| number.parse::<usize>().ok());
        number
            .and_then(|number| symbols.get(number))
            .cloned()
            .unwrap_or_else(|| text.to_owned())
    };
    Error::Data(DataError {
        found: name(&error.found),
        expected: name(&error.expected),
        ..error
    })
}

/// Walks over the stretches of symbols.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    next: usize,
    symbol: u32,
}

impl Stretch {
    /// Returns the row at which the next stretch begins.
    fn end(&self, columns: &Columns) -> usize {
        columns
            .stretches
            .get(self.next)
            .map_or(columns.start.len(), |stretch| stretch.0)
    }

    #[inline]
    fn step(&mut self, columns: &Columns, row: usize) -> Step {
        if let Some(&(first, symbol)) = columns.stretches.get(self.next)
            && first == row
        {
            self.symbol = symbol;
            self.next += 1;
        }
        Step {
            bar: columns.bar(row),
            symbol: self.symbol,
            actionable: columns.actionable.is_none_or(|flags| flags[row]),
            context: columns.context.is_some_and(|flags| flags[row]),
        }
    }
}

impl State {
    fn new(rules: &Rules) -> Self {
        let keep = Trader::reach(&rules.config, rules.interval) + 1;
        Self {
            checker: Checker::default(),
            detector: Detector::new(
                &rules.config,
                rules.interval,
                rules.instrument.tick_nanos,
                keep,
            ),
            trader: Trader::new(&rules.config, &rules.instrument, rules.interval),
            counts: BarCounts::default(),
            symbol: None,
            in_context: false,
            next_due: NEVER,
            session_close: i64::MIN,
            session_end: i64::MIN,
            advanced: i64::MIN,
        }
    }

    /// Checks a bar; a refusal leaves no trace.
    fn check(
        &mut self,
        step: &Step,
        limits: &Limits,
        sessions: &Sessions,
    ) -> Result<Place, DataError> {
        let before = self.checker.clone();
        let checked = self.place(0, step, limits, sessions);
        if checked.is_err() {
            self.checker = before;
        }
        checked
    }

    #[inline]
    fn place(
        &mut self,
        row: usize,
        step: &Step,
        limits: &Limits,
        sessions: &Sessions,
    ) -> Result<Place, DataError> {
        if step.context {
            self.checker.check_context(row, &step.bar, limits, sessions)
        } else {
            self.checker
                .check(row, &step.bar, step.symbol, limits, sessions)
        }
    }

    fn take_all(
        &mut self,
        columns: &Columns,
        rules: &Rules,
        sessions: &Sessions,
        symbols: &[String],
        sink: &mut dyn Sink,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let rows = columns.start.len();
        let mut next = Stretch::default();
        for from in (0..rows).step_by(CHUNK) {
            if stop() {
                return Err(Error::Interrupted);
            }
            let to = rows.min(from + CHUNK);
            let mut row = from;
            while row < to {
                row += self.take_quiet(columns, next.symbol, row..next.end(columns).min(to), rules);
                if row == to {
                    break;
                }
                let step = next.step(columns, row);
                let place = self.place(row, &step, &rules.limits, sessions)?;
                self.take(&step, place, rules, sessions, symbols, sink);
                row += 1;
            }
        }
        Ok(())
    }

    /// Takes the bars from `from` on that can change nothing but the last price, and returns how
    /// many there were. They pass the same checks as any other.
    fn take_quiet(
        &mut self,
        columns: &Columns,
        symbol: u32,
        rows: Range<usize>,
        rules: &Rules,
    ) -> usize {
        if rows.is_empty()
            || columns.context.is_some()
            || self.symbol != Some(symbol)
            || !self.trader.is_idle()
            || !self.detector.is_plain(&rules.config)
        {
            return 0;
        }
        let (from, to) = (rows.start, rows.end);
        let before = self.next_due - rules.interval;
        let mut not_after = self.checker.not_after();
        let rows = columns
            .bars(from..to)
            .take_while(|bar| {
                let quiet = (bar.start < before) & (bar.start > not_after) & (bar.volume != 0);
                not_after = bar.start;
                quiet & rules.limits.accepts(bar)
            })
            .count();
        if rows > 0 {
            self.detector.push_plain(columns.bars(from..from + rows));
            let bar = columns.bar(from + rows - 1);
            self.checker.saw(bar.start);
            self.trader.pass(&bar);
            self.counts.bars += rows as u64;
        }
        rows
    }

    #[inline]
    fn take(
        &mut self,
        step: &Step,
        place: Place,
        rules: &Rules,
        sessions: &Sessions,
        symbols: &[String],
        sink: &mut dyn Sink,
    ) {
        match place {
            Place::Empty => self.counts.zero_volume += 1,
            Place::Outside => self.counts.outside_session += 1,
            Place::Session(session) if step.context => {
                self.take_context(step, session, rules, sessions, symbols, sink)
            }
            Place::Session(session) => {
                self.counts.bars += 1;
                self.process(step, session, rules, sessions, symbols, sink);
            }
        }
    }

    fn take_context(
        &mut self,
        step: &Step,
        session: usize,
        rules: &Rules,
        sessions: &Sessions,
        symbols: &[String],
        sink: &mut dyn Sink,
    ) {
        self.counts.context_bars += 1;
        let table = &sessions.all()[session];
        if !self.in_context {
            // Nothing of the old contract's sessions is left open, whichever session this is of.
            let close = ceil_to_grid(table.close, rules.interval).max(self.session_end);
            self.advance(close, rules, symbols, sink);
            self.in_context = true;
        }
        self.change_symbol(step.symbol, rules, sink);
        self.detector
            .push_context(&step.bar, session, table, &rules.config);
    }

    fn change_symbol(&mut self, symbol: u32, rules: &Rules, sink: &mut dyn Sink) {
        if self.symbol == Some(symbol) {
            return;
        }
        if self.symbol.is_some_and(|known| known != symbol) {
            self.trader
                .leave_stale(&rules.config, &rules.instrument, sink);
        }
        self.symbol = Some(symbol);
        self.detector.change_symbol(symbol, &rules.config);
    }

    /// Works through one bar of a session.
    #[inline]
    fn process(
        &mut self,
        step: &Step,
        session: usize,
        rules: &Rules,
        sessions: &Sessions,
        symbols: &[String],
        sink: &mut dyn Sink,
    ) {
        let bar = &step.bar;
        let end = bar.start + rules.interval;
        if self.next_due <= bar.start {
            self.fall_due(bar.start, rules, symbols, sink);
        }
        if bar.start >= self.session_end {
            self.open_session(step, session, rules, sessions, symbols, sink);
        }
        if self.trader.is_idle() {
            if self.next_due < end {
                self.fall_due(end - 1, rules, symbols, sink);
            }
            self.detector.push(bar, &rules.config);
            self.trader.pass(bar);
        } else {
            self.work(bar, step.actionable, end, rules, symbols, sink);
        }
        let window_due = self.detector.due(&rules.config);
        if window_due <= end {
            self.judge(end, Some(bar), step.actionable, rules, symbols, sink);
            self.schedule(rules);
        } else {
            // A sliding window that this bar began, and that waits for its profile or momentum.
            self.next_due = self.next_due.min(window_due);
        }
        if self.next_due <= end {
            self.fall_due(end, rules, symbols, sink);
        }
    }

    /// The order of work of a bar in which something is pending, working or open.
    fn work(
        &mut self,
        bar: &BarInput,
        actionable: bool,
        end: i64,
        rules: &Rules,
        symbols: &[String],
        sink: &mut dyn Sink,
    ) {
        let surroundings = market(
            &self.detector,
            self.symbol,
            self.session_close,
            rules,
            symbols,
        );
        self.trader.at_open(bar, surroundings, sink);
        // A fill makes nothing due; that what filled is no longer due is found below.
        if self.next_due < end {
            self.fall_due(end - 1, rules, symbols, sink);
        }
        let surroundings = market(
            &self.detector,
            self.symbol,
            self.session_close,
            rules,
            symbols,
        );
        self.trader.inside(bar, surroundings, sink);
        self.detector.push(bar, &rules.config);
        let surroundings = market(
            &self.detector,
            self.symbol,
            self.session_close,
            rules,
            symbols,
        );
        self.trader.at_end(bar, surroundings, sink);
        self.trader.retest(bar, actionable, surroundings, sink);
        self.schedule(rules);
    }

    /// Judges the windows that are due at an instant.
    fn judge(
        &mut self,
        instant: i64,
        bar: Option<&BarInput>,
        actionable: bool,
        rules: &Rules,
        symbols: &[String],
        sink: &mut dyn Sink,
    ) {
        while self.detector.due(&rules.config) <= instant {
            let judging = Judging {
                instant,
                last_confirmed: self.trader.last_confirmed(),
            };
            if let Some(armed) = self.detector.judge(judging, &rules.config, sink) {
                let surroundings = market(
                    &self.detector,
                    self.symbol,
                    self.session_close,
                    rules,
                    symbols,
                );
                self.trader.arm(armed, bar, actionable, surroundings, sink);
            }
        }
    }

    fn open_session(
        &mut self,
        step: &Step,
        session: usize,
        rules: &Rules,
        sessions: &Sessions,
        symbols: &[String],
        sink: &mut dyn Sink,
    ) {
        let table = &sessions.all()[session];
        self.in_context = false;
        self.change_symbol(step.symbol, rules, sink);
        self.detector.open_session(session, table, &rules.config);
        self.session_close = table.close;
        self.session_end = ceil_to_grid(table.close, rules.interval);
        let surroundings = market(
            &self.detector,
            self.symbol,
            self.session_close,
            rules,
            symbols,
        );
        self.trader.open_session(step.bar.start, surroundings, sink);
        self.schedule(rules);
        if self.next_due <= step.bar.start {
            self.fall_due(step.bar.start, rules, symbols, sink);
        }
    }

    /// Works through everything that falls due without a bar until `until`.
    fn fall_due(&mut self, until: i64, rules: &Rules, symbols: &[String], sink: &mut dyn Sink) {
        while self.next_due <= until {
            let instant = self.next_due;
            self.judge(instant, None, true, rules, symbols, sink);
            self.trader.fall_due(instant, &rules.config, sink);
            if self.session_end <= instant {
                self.trader.close_session(instant, &rules.instrument, sink);
                self.detector.close_session(&rules.config);
                self.session_close = i64::MIN;
                self.session_end = i64::MIN;
            }
            self.schedule(rules);
        }
    }

    /// Finds the instant of the next thing that falls due.
    #[inline]
    fn schedule(&mut self, rules: &Rules) {
        let end = if self.session_end == i64::MIN {
            NEVER
        } else {
            self.session_end
        };
        self.next_due = end
            .min(self.detector.due(&rules.config))
            .min(self.trader.due());
    }

    fn advance(&mut self, time: i64, rules: &Rules, symbols: &[String], sink: &mut dyn Sink) {
        if time <= self.advanced {
            return;
        }
        self.advanced = time;
        self.checker.advance(time);
        self.fall_due(time, rules, symbols, sink);
    }
}

fn market<'a>(
    detector: &'a Detector,
    symbol: Option<u32>,
    session_close: i64,
    rules: &'a Rules,
    symbols: &'a [String],
) -> Market<'a> {
    Market {
        config: &rules.config,
        config_id: &rules.config_id,
        instrument: &rules.instrument,
        tape: detector.tape(),
        symbol_first: detector.symbol_first(),
        symbol_name: symbol
            .and_then(|symbol| symbols.get(symbol as usize))
            .map_or("", String::as_str),
        session: detector.session().map_or(usize::MAX, |(index, _)| index),
        session_close,
    }
}
