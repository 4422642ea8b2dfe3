//! The rows of the result frames. Each record is declared once; its columns, events and the
//! reference page are made from that declaration.

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// ns UTC.
    Time,
    /// Points.
    Price,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// A word.
    Text,
    /// Symbol of a contract.
    Symbol,
    /// 128-bit identity.
    Id,
}

/// What a column means.
#[derive(Clone, Copy, Debug)]
pub struct ColumnField {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: ColumnKind,
    /// Whether it may be null.
    pub nullable: bool,
    /// Unit.
    pub unit: &'static str,
    /// Meaning, in one sentence.
    pub sentence: &'static str,
}

/// One value of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// ns UTC.
    Time(i64),
    /// 1e-9 points.
    Price(i64),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A word.
    Text(&'static str),
    /// Index into the engine's symbols.
    Symbol(u32),
    /// 128-bit identity.
    Id(u128),
    /// No value.
    Null,
}

/// The values of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Times or whole numbers, and which of them are there when some may be missing.
    Ints(Vec<i64>, Option<Vec<bool>>),
    /// Prices in 1e-9; NaN cannot stand for a missing one, so it is an option.
    Prices(Vec<Option<i64>>),
    /// Numbers; NaN where there is none.
    Floats(Vec<f64>),
    /// Flags, and which of them are there when some may be missing.
    Bools(Vec<bool>, Option<Vec<bool>>),
    /// Words.
    Texts(Vec<Option<&'static str>>),
    /// Indices into the engine's symbols.
    Symbols(Vec<u32>),
    /// 128-bit identities.
    Ids(Vec<u128>),
}

/// A record with named columns.
pub trait Record: Sized {
    /// Name of the frame.
    const FRAME: &'static str;
    /// Columns, in order.
    const COLUMNS: &'static [ColumnField];
    /// Returns the value of a column.
    fn cell(&self, column: usize) -> Cell;
    /// Returns all columns of some rows, in order.
    fn columns(rows: &[Self]) -> Vec<Column>;
}

macro_rules! rust_type {
    (time) => { i64 }; (price) => { i64 }; (int) => { i64 }; (float) => { f64 }; (bool) => { bool };
    (text) => { &'static str }; (symbol) => { u32 }; (id) => { u128 };
    (opt_time) => { Option<i64> }; (opt_price) => { Option<i64> }; (opt_int) => { Option<i64> };
    (opt_float) => { Option<f64> }; (opt_bool) => { Option<bool> }; (opt_text) => { Option<&'static str> };
}

macro_rules! column_kind {
    (time) => {
        (ColumnKind::Time, false)
    };
    (price) => {
        (ColumnKind::Price, false)
    };
    (int) => {
        (ColumnKind::Int, false)
    };
    (float) => {
        (ColumnKind::Float, false)
    };
    (bool) => {
        (ColumnKind::Bool, false)
    };
    (text) => {
        (ColumnKind::Text, false)
    };
    (symbol) => {
        (ColumnKind::Symbol, false)
    };
    (id) => {
        (ColumnKind::Id, false)
    };
    (opt_time) => {
        (ColumnKind::Time, true)
    };
    (opt_price) => {
        (ColumnKind::Price, true)
    };
    (opt_int) => {
        (ColumnKind::Int, true)
    };
    (opt_float) => {
        (ColumnKind::Float, true)
    };
    (opt_bool) => {
        (ColumnKind::Bool, true)
    };
    (opt_text) => {
        (ColumnKind::Text, true)
    };
}

macro_rules! to_cell {
    (time, $v:expr) => {
        Cell::Time($v)
    };
    (price, $v:expr) => {
        Cell::Price($v)
    };
    (int, $v:expr) => {
        Cell::Int($v)
    };
    (float, $v:expr) => {
        Cell::Float($v)
    };
    (bool, $v:expr) => {
        Cell::Bool($v)
    };
    (text, $v:expr) => {
        Cell::Text($v)
    };
    (symbol, $v:expr) => {
        Cell::Symbol($v)
    };
    (id, $v:expr) => {
        Cell::Id($v)
    };
    (opt_time, $v:expr) => {
        $v.map_or(Cell::Null, Cell::Time)
    };
    (opt_price, $v:expr) => {
        $v.map_or(Cell::Null, Cell::Price)
    };
    (opt_int, $v:expr) => {
        $v.map_or(Cell::Null, Cell::Int)
    };
    (opt_float, $v:expr) => {
        $v.map_or(Cell::Null, Cell::Float)
    };
    (opt_bool, $v:expr) => {
        $v.map_or(Cell::Null, Cell::Bool)
    };
    (opt_text, $v:expr) => {
        $v.map_or(Cell::Null, Cell::Text)
    };
}

/// Collects one field of many rows.
macro_rules! to_column {
    (time, $v:expr) => {
        Column::Ints($v.collect(), None)
    };
    (int, $v:expr) => {
        Column::Ints($v.collect(), None)
    };
    (price, $v:expr) => {
        Column::Prices($v.map(Some).collect())
    };
    (float, $v:expr) => {
        Column::Floats($v.collect())
    };
    (bool, $v:expr) => {
        Column::Bools($v.collect(), None)
    };
    (text, $v:expr) => {
        Column::Texts($v.map(Some).collect())
    };
    (symbol, $v:expr) => {
        Column::Symbols($v.collect())
    };
    (id, $v:expr) => {
        Column::Ids($v.collect())
    };
    (opt_time, $v:expr) => {
        optional_ints($v)
    };
    (opt_int, $v:expr) => {
        optional_ints($v)
    };
    (opt_price, $v:expr) => {
        Column::Prices($v.collect())
    };
    (opt_float, $v:expr) => {
        Column::Floats($v.map(|v| v.unwrap_or(f64::NAN)).collect())
    };
    (opt_bool, $v:expr) => {
        optional_bools($v)
    };
    (opt_text, $v:expr) => {
        Column::Texts($v.collect())
    };
}

fn optional_ints(values: impl Iterator<Item = Option<i64>>) -> Column {
    let (values, there) = values.map(|v| (v.unwrap_or(0), v.is_some())).unzip();
    Column::Ints(values, Some(there))
}

fn optional_bools(values: impl Iterator<Item = Option<bool>>) -> Column {
    let (values, there) = values.map(|v| (v.unwrap_or(false), v.is_some())).unzip();
    Column::Bools(values, Some(there))
}

macro_rules! record {
    ($(#[$doc:meta])* $Name:ident in $frame:literal {
        $($field:ident $(as $shown:literal)?: $kind:ident, $unit:literal, $sentence:literal;)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name { $(#[doc = $sentence] pub $field: rust_type!($kind)),+ }

        impl Record for $Name {
            const FRAME: &'static str = $frame;
            const COLUMNS: &'static [ColumnField] = &[$(ColumnField {
                name: record!(@name $field $($shown)?),
                kind: column_kind!($kind).0,
                nullable: column_kind!($kind).1,
                unit: $unit,
                sentence: $sentence,
            }),+];
            fn columns(rows: &[Self]) -> Vec<Column> {
                vec![$(to_column!($kind, rows.iter().map(|row| row.$field))),+]
            }

            fn cell(&self, column: usize) -> Cell {
                let mut index = 0;
                $(
                    if index == column {
                        return to_cell!($kind, self.$field);
                    }
                    index += 1;
                )+
                debug_assert!(index <= column, "Invariant: the column exists");
                Cell::Null
            }
        }
    };
    (@name $field:ident $shown:literal) => { $shown };
    (@name $field:ident) => { stringify!($field) };
}

record! {
    /// A window that traded unusually much, as it was decided.
    Cluster in "clusters" {
        symbol: symbol, "", "Contract.";
        window_start: time, "UTC", "Start of the window.";
        decision_time: time, "UTC", "When the last input of the decision was known.";
        open: price, "points", "First open of the window.";
        high: price, "points", "Highest high of the window.";
        low: price, "points", "Lowest low of the window.";
        close: price, "points", "Last close of the window.";
        volume: int, "contracts", "Volume of the window.";
        minutes: float, "minutes", "Minutes of the window that had a bar.";
        baseline: float, "contracts per minute", "Usual volume of a minute.";
        baseline_source: text, "", "Where the baseline came from; `,other_contract` when from another contract.";
        volume_ratio: float, "ratio", "Volume against the usual volume, on the configured basis.";
        rank: opt_int, "rank", "Place among the clusters it competes with, 1 the largest.";
        modal_price: opt_price, "points", "Price that traded most (point of control).";
        modal_tied: opt_bool, "", "Whether several prices traded equally much.";
        value_area_low: opt_price, "points", "Lower end of the 70 % value area.";
        value_area_high: opt_price, "points", "Upper end of the 70 % value area.";
        modal_position: opt_float, "0 to 1", "Where the modal price lies between low and high.";
        momentum: opt_float, "return", "Return over the momentum interval.";
        direction: opt_text, "", "`long`, `short` or `none`.";
        strength: opt_float, "0 to 1", "Weighted strength of the signal.";
        reason: text, "", "`armed`, or why it went no further.";
    }
}

record! {
    /// A signal that was armed, as it ended.
    Signal in "signals" {
        symbol: symbol, "", "Contract.";
        decision_time: time, "UTC", "When the cluster was decided.";
        direction: text, "", "`long` or `short`.";
        modal_price: price, "points", "Price whose retest confirms.";
        modal_position: float, "0 to 1", "Where the modal price lies between low and high.";
        volume_ratio: float, "ratio", "Volume ratio of the cluster.";
        rank: int, "rank", "Rank of the cluster.";
        momentum: opt_float, "return", "Return over the momentum interval.";
        strength: float, "0 to 1", "Strength.";
        confirmed_time: opt_time, "UTC", "When the retest was known.";
        resolved_time: time, "UTC", "When the signal ended.";
        reason: text, "", "`ordered`, or why there was no order.";
    }
}

record! {
    /// An order, as it ended, or the block that stood in its way.
    Order in "orders" {
        trade_id: id, "", "Hash of symbol, decision time and configuration.";
        symbol: symbol, "", "Contract.";
        decision_time: time, "UTC", "When the cluster was decided.";
        confirmed_time: time, "UTC", "When the order was made.";
        direction: text, "", "`long` or `short`.";
        mode: text, "", "`next_open`, `limit` or `close`.";
        quantity: int, "contracts", "Contracts; 0 when blocked.";
        limit_price: opt_price, "points", "Price of the limit order.";
        reference_price: price, "points", "Price on which the distances rest.";
        stop_distance: opt_price, "points", "Distance of the stop from the fill.";
        target_distance: opt_price, "points", "Distance of the target from the fill.";
        sigma_hold: opt_float, "fraction of price", "Volatility over the holding time.";
        sigma_source: opt_text, "", "Estimator that gave it.";
        context: opt_int, "", "Context of the record of earlier trades.";
        multiplier: opt_float, "", "Size multiplier from that record.";
        posterior_mean: opt_float, "probability", "Posterior mean of the win probability.";
        posterior_low: opt_float, "probability", "5 % quantile of the posterior.";
        posterior_high: opt_float, "probability", "95 % quantile of the posterior.";
        valid_until: time, "UTC", "First deadline of the order.";
        entry_time: opt_time, "UTC", "When it filled.";
        entry_price: opt_price, "points", "Price of the fill.";
        resolved_time: time, "UTC", "When it ended.";
        reason: text, "", "`filled`, or why not.";
    }
}

record! {
    /// A trade from entry to exit.
    Trade in "trades" {
        trade_id: id, "", "Hash of symbol, decision time and configuration.";
        symbol: symbol, "", "Contract.";
        direction: text, "", "`long` or `short`.";
        quantity: int, "contracts", "Contracts entered.";
        decision_time: time, "UTC", "When the cluster was decided.";
        confirmed_time: time, "UTC", "When the retest was known.";
        entry_time: time, "UTC", "Start of the bar for a fill at its open, its end otherwise.";
        entry_price: price, "points", "Price paid.";
        stop: price, "points", "Initial stop.";
        target: price, "points", "Target.";
        exit_time: time, "UTC", "Start of the bar for a fill at its open, its end otherwise.";
        exit_price: float, "points", "Quantity-weighted exit price.";
        exit_reason: text, "", "`stop target time session_end session_end_late scale_out reverse open`.";
        ambiguous: bool, "", "Whether one bar reached stop and target.";
        optimistic: bool, "", "Whether the entry is one nobody can have.";
        stale: bool, "", "Whether the exit is a last price of a contract that was left.";
        sigma_hold: float, "fraction of price", "Volatility over the holding time.";
        sigma_source: text, "", "Estimator that gave it.";
        volume_ratio: float, "ratio", "Volume ratio of the cluster.";
        rank: int, "rank", "Rank of the cluster.";
        modal_price: price, "points", "Modal price of the cluster.";
        modal_tied: bool, "", "Whether several prices traded equally much.";
        modal_position: float, "0 to 1", "Where the modal price lies between low and high.";
        momentum: opt_float, "return", "Return over the momentum interval.";
        strength: float, "0 to 1", "Strength of the signal.";
        context: opt_int, "", "Context of the record of earlier trades.";
        multiplier: float, "", "Size multiplier from that record.";
        gross: float, "USD", "Result before costs.";
        costs: float, "USD", "Commission and slippage of both sides.";
        net: float, "USD", "Result after costs.";
        net_return as "return": opt_float, "fraction of notional", "Net result over the entry's notional; null when the entry price is zero.";
        mae: float, "points", "Largest adverse excursion.";
        mfe: float, "points", "Largest favourable excursion.";
        bars_held: int, "bars", "Bars from entry to exit, both counted.";
    }
}

record! {
    /// The account at an instant.
    Equity in "equity" {
        time: time, "UTC", "End of the bar, or the session's close.";
        balance: float, "USD", "Money booked.";
        equity: float, "USD", "Balance and open results at the last close.";
        open_contracts: int, "contracts", "Contracts open, long and short added.";
        drawdown: float, "USD", "Distance below the highest equity so far.";
    }
}

record! {
    /// A halt, a pause or its end.
    Risk in "risk" {
        time: time, "UTC", "When it was known.";
        kind: text, "", "`halted paused resumed reset`.";
        reason: text, "", "What caused it.";
    }
}

/// What the engine has to say, in the order of work.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A cluster was decided.
    Cluster(Cluster),
    /// A signal waits for its retest; reason `armed`.
    Armed(Signal),
    /// A signal ended.
    Signal(Signal),
    /// An order works; reason `working`.
    Working(Order),
    /// An order ended, or was blocked.
    Order(Order),
    /// A trade ended.
    Trade(Trade),
    /// The account was marked.
    Equity(Equity),
    /// Trading was halted, paused or resumed.
    Risk(Risk),
}

/// Where events go.
pub trait Sink {
    /// Takes an event.
    fn take(&mut self, event: Event);

    /// Takes a mark of the account, the one event that comes with every bar of a position.
    fn take_equity(&mut self, row: Equity) {
        self.take(Event::Equity(row));
    }
}

impl Sink for Vec<Event> {
    fn take(&mut self, event: Event) {
        self.push(event);
    }
}

/// Events sorted into frames; states on the way (armed, working) are not rows.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// Clusters.
    pub clusters: Vec<Cluster>,
    /// Signals that ended.
    pub signals: Vec<Signal>,
    /// Orders that ended.
    pub orders: Vec<Order>,
    /// Trades that ended.
    pub trades: Vec<Trade>,
    /// Marks of the account.
    pub equity: Vec<Equity>,
    /// Halts and pauses.
    pub risk: Vec<Risk>,
}

impl Sink for Frames {
    fn take_equity(&mut self, row: Equity) {
        self.equity.push(row);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Cluster(row) => self.clusters.push(row),
            Event::Signal(row) => self.signals.push(row),
            Event::Order(row) => self.orders.push(row),
            Event::Trade(row) => self.trades.push(row),
            Event::Equity(row) => self.equity.push(row),
            Event::Risk(row) => self.risk.push(row),
            Event::Armed(_) | Event::Working(_) => {}
        }
    }
}
