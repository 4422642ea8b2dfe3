//! The rows of an input log. `Engine::replay` is a fold of `step`, `trades` and `advance` over them,
//! so that a log is read again by the same code that consumed it.

use crate::engine::Columns;
use crate::error::DataError;
use crate::record::{Event, Sink};

/// What a row of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bar that was consumed.
    Bar,
    /// A trade: its time is the start, its price the close, its size the volume.
    Trade,
    /// A closing: every interval that ends at or before the start is closed.
    Closed,
}

impl Kind {
    /// Returns the kind with a number: 0 a bar, 1 a trade, 2 a closing.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Bar),
            1 => Some(Self::Trade),
            2 => Some(Self::Closed),
            _ => None,
        }
    }
}

/// Rows of a log as columns.
#[derive(Clone, Copy, Debug)]
pub struct LogRows<'a> {
    /// Numbers of [`Kind::from_code`].
    pub kinds: &'a [u8],
    /// What the rows hold; what a kind does not use is not read.
    pub columns: Columns<'a>,
}

impl LogRows<'_> {
    pub(crate) fn kind(&self, row: usize) -> Result<Kind, DataError> {
        Kind::from_code(self.kinds[row]).ok_or_else(|| DataError {
            row,
            column: "kind",
            problem: "no such kind of row".to_owned(),
            found: self.kinds[row].to_string(),
            expected: "0 bar, 1 trade, 2 closing".to_owned(),
        })
    }

    pub(crate) fn check_lengths(&self) -> Result<(), DataError> {
        self.columns.check_lengths()?;
        let (kinds, rows) = (self.kinds.len(), self.columns.start.len());
        if kinds == rows {
            return Ok(());
        }
        Err(DataError {
            row: kinds.min(rows),
            column: "kind",
            problem: "columns differ in length".to_owned(),
            found: kinds.to_string(),
            expected: rows.to_string(),
        })
    }
}

/// Events, each with the row that caused it.
#[derive(Clone, Debug, Default)]
pub struct Caused {
    /// Row and event, in the order of work.
    pub events: Vec<(usize, Event)>,
    pub(crate) row: usize,
}

impl Sink for Caused {
    fn take(&mut self, event: Event) {
        self.events.push((self.row, event));
    }
}
