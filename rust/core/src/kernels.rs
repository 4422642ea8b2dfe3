//! The engine's formulas over whole columns, for research. They decide nothing in the engine.
//!
//! Invariant: no formula of the engine is written here again. What a kernel adds is only the way
//! from one window to the next, and each is tested to give what the engine's own function gives
//! for every window alone.

pub mod baseline;
pub mod clusters;
pub mod modal;
pub mod retest;

use std::ops::Range;

use crate::bar::{Bar, PRICE_LIMIT_NANOS, VOLUME_LIMIT};
use crate::error::{ConfigError, DataError};
use crate::instrument::NANOS_PER_POINT;
use crate::profile::{Histogram, Profile, ProfileRule, fill, profile};
use crate::session::Session;

/// Columns of bars that have a profile, oldest first, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct ProfileColumns<'a> {
    /// Highs in 1e-9.
    pub high: &'a [i64],
    /// Lows in 1e-9.
    pub low: &'a [i64],
    /// Closes in 1e-9.
    pub close: &'a [i64],
    /// Contracts.
    pub volume: &'a [i64],
}

impl ProfileColumns<'_> {
    /// Returns the number of bars.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.close.len()
    }

    fn check_lengths(&self) -> Result<(), DataError> {
        self.prices().check_lengths()?;
        check_length("volume", self.volume.len(), self.rows())
    }

    #[inline(always)]
    fn slice(&self, rows: Range<usize>) -> Self {
        Self {
            high: &self.high[rows.clone()],
            low: &self.low[rows.clone()],
            close: &self.close[rows.clone()],
            volume: &self.volume[rows],
        }
    }

    /// Returns whether a bar can be counted.
    #[inline(always)]
    fn accepts(&self, row: usize) -> bool {
        self.prices().accepts(row) & accepts_volume(self.volume[row])
    }

    /// Names what is wrong with a bar that cannot be counted.
    #[cold]
    fn refuse(&self, row: usize) -> DataError {
        if !accepts_volume(self.volume[row]) {
            return refuse_volume(row, self.volume[row]);
        }
        self.prices().refuse(row)
    }

    #[inline(always)]
    fn prices(&self) -> PriceColumns<'_> {
        PriceColumns {
            high: self.high,
            low: self.low,
            close: self.close,
        }
    }

    fn bars(&self) -> Vec<Bar> {
        (0..self.rows())
            .map(|row| {
                bar(
                    self.low[row],
                    self.high[row],
                    self.close[row],
                    self.volume[row],
                )
            })
            .collect()
    }
}

/// Columns of prices, oldest first, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct PriceColumns<'a> {
    /// Highs in 1e-9.
    pub high: &'a [i64],
    /// Lows in 1e-9.
    pub low: &'a [i64],
    /// Closes in 1e-9.
    pub close: &'a [i64],
}

impl PriceColumns<'_> {
    fn check_lengths(&self) -> Result<(), DataError> {
        check_length("high", self.high.len(), self.close.len())?;
        check_length("low", self.low.len(), self.close.len())
    }

    #[inline(always)]
    fn accepts(&self, row: usize) -> bool {
        let (high, low, close) = (self.high[row], self.low[row], self.close[row]);
        (low <= close) & (close <= high) & (-PRICE_LIMIT_NANOS < low) & (high < PRICE_LIMIT_NANOS)
    }

    #[cold]
    fn refuse(&self, row: usize) -> DataError {
        let (high, low, close) = (self.high[row], self.low[row], self.close[row]);
        for (column, price) in [("high", high), ("low", low), ("close", close)] {
            if !(-PRICE_LIMIT_NANOS < price && price < PRICE_LIMIT_NANOS) {
                let expected = format!("within {} points", points(PRICE_LIMIT_NANOS));
                return error(row, column, "price too large", points(price), expected);
            }
        }
        if high < close {
            let expected = format!("at least {}", points(close));
            return error(row, "high", "high below close", points(high), expected);
        }
        let expected = format!("at most {}", points(close));
        error(row, "low", "low above close", points(low), expected)
    }
}

fn points(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_POINT
}

/// Returns a bar as a profile sees it.
fn bar(low: i64, high: i64, close: i64, volume: i64) -> Bar {
    Bar {
        start: 0,
        open: close,
        high,
        low,
        close,
        volume,
        volume_before: 0,
        follows: false,
    }
}

/// Returns the histogram of some bars and what it says, which is nothing when nothing traded or
/// the range is wider than [`crate::profile::MAX_TICKS`].
///
/// # Errors
/// When the columns differ in length, or a bar is incoherent, out of range or of negative volume.
pub fn volume_profile(
    columns: ProfileColumns<'_>,
    rule: ProfileRule,
) -> Result<(Histogram, Option<Profile>), DataError> {
    columns.check_lengths()?;
    if let Some(row) = (0..columns.rows()).find(|row| !columns.accepts(*row)) {
        return Err(columns.refuse(row));
    }
    let bars = columns.bars();
    let mut histogram = Histogram::default();
    let found = profile(&mut histogram, &bars, 0, &[], rule);
    if found.is_none() && !fill(&mut histogram, &bars, 0, &[], rule) {
        histogram = Histogram::default();
    }
    Ok((histogram, found))
}

#[inline(always)]
fn accepts_volume(volume: i64) -> bool {
    (volume as u64) < VOLUME_LIMIT as u64
}

fn refuse_volume(row: usize, volume: i64) -> DataError {
    error(
        row,
        "volume",
        "volume not allowed",
        volume,
        format!("0 or more, below {VOLUME_LIMIT}"),
    )
}

fn check_volumes(volume: &[i64]) -> Result<(), DataError> {
    match volume.iter().position(|volume| !accepts_volume(*volume)) {
        Some(row) => Err(refuse_volume(row, volume[row])),
        None => Ok(()),
    }
}

fn check_length(column: &'static str, found: usize, rows: usize) -> Result<(), DataError> {
    if found == rows {
        return Ok(());
    }
    Err(error(
        found.min(rows),
        column,
        "columns differ in length",
        found,
        rows.to_string(),
    ))
}

/// Checks that every bar starts after the one before it.
fn check_order(start: &[i64]) -> Result<(), DataError> {
    let Some(row) = start.windows(2).position(|pair| pair[0] >= pair[1]) else {
        return Ok(());
    };
    let expected = format!("after {} ns", start[row]);
    Err(error(
        row + 1,
        "ts_event",
        "not after the bar before it",
        start[row + 1],
        expected,
    ))
}

/// Checks that a session ends with a bar. The engine moves an uneven close to the grid; a kernel
/// refuses it, so that the two never differ silently.
fn check_close(session: &Session, interval: i64) -> Result<(), ConfigError> {
    if session.close.rem_euclid(interval) == 0 {
        return Ok(());
    }
    Err(ConfigError {
        field: "interval".to_owned(),
        problem: "a session that holds bars does not close on the grid of the interval".to_owned(),
        found: format!("a close at {} ns", session.close),
        expected: format!("a multiple of {interval} ns"),
    })
}

fn check_interval(interval: i64) -> Result<(), ConfigError> {
    if interval > 0 {
        return Ok(());
    }
    Err(setting(
        "interval",
        "not a length of time",
        interval,
        "above 0 ns",
    ))
}

fn setting(field: &str, problem: &str, found: impl ToString, expected: &str) -> ConfigError {
    ConfigError {
        field: field.to_owned(),
        problem: problem.to_owned(),
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}

fn error(
    row: usize,
    column: &'static str,
    problem: &str,
    found: impl ToString,
    expected: String,
) -> DataError {
    DataError {
        row,
        column,
        problem: problem.to_owned(),
        found: found.to_string(),
        expected,
    }
}
