//! Bars, and the tape the engine remembers them on. Invariant: the tape holds only bars that have
//! ended, in the order they were consumed.

/// Nanoseconds in a minute.
pub const MINUTE_NS: i64 = 60_000_000_000;

/// Prices at or beyond this are refused; Databento's undefined price is one of them.
pub const PRICE_LIMIT_NANOS: i64 = 1_000_000_000_000_000_000;

/// Volumes at or beyond this are refused, so that no sum of them can overflow.
pub const VOLUME_LIMIT: i64 = 1 << 32;

/// A bar as it comes in: it covers `[start, start + interval)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarInput {
    /// Start in ns UTC.
    pub start: i64,
    /// Open in 1e-9.
    pub open: i64,
    /// High in 1e-9.
    pub high: i64,
    /// Low in 1e-9.
    pub low: i64,
    /// Close in 1e-9.
    pub close: i64,
    /// Contracts.
    pub volume: i64,
}

/// A bar on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Start in ns UTC.
    pub start: i64,
    /// Open in 1e-9.
    pub open: i64,
    /// High in 1e-9.
    pub high: i64,
    /// Low in 1e-9.
    pub low: i64,
    /// Close in 1e-9.
    pub close: i64,
    /// Contracts.
    pub volume: i64,
    /// Contracts of all bars before it on the tape since the engine began.
    pub volume_before: i64,
    /// Whether the bar before it on the tape is of the same session and symbol.
    pub follows: bool,
}

impl Bar {
    #[inline]
    fn new(bar: &BarInput, volume_before: i64, follows: bool) -> Self {
        Self {
            start: bar.start,
            open: bar.open,
            high: bar.high,
            low: bar.low,
            close: bar.close,
            volume: bar.volume,
            volume_before,
            follows,
        }
    }
}

/// The bars the engine remembers.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    bars: Vec<Bar>,
    volume: i64,
    forgotten: usize,
}

impl Tape {
    /// Returns the bars, oldest first.
    #[must_use]
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// Returns the number of bars.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bars.len()
    }

    /// Returns whether there is no bar.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// Adds a bar that has ended.
    #[inline]
    pub fn push(&mut self, bar: &BarInput, follows: bool) {
        self.bars.push(Bar::new(bar, self.volume, follows));
        self.volume += bar.volume;
    }

    /// Adds bars that have ended; `follows` speaks of the first, the others follow.
    pub fn extend(&mut self, bars: impl ExactSizeIterator<Item = BarInput>, follows: bool) {
        let first = self.bars.len();
        let mut volume_before = self.volume;
        self.bars.extend(bars.map(|bar| {
            let taken = Bar::new(&bar, volume_before, true);
            volume_before += bar.volume;
            taken
        }));
        self.volume = volume_before;
        if let Some(bar) = self.bars.get_mut(first) {
            bar.follows = follows;
        }
    }

    /// Returns the volume of the bars `from..to`.
    #[must_use]
    pub fn volume_between(&self, from: usize, to: usize) -> i64 {
        self.volume_before(to) - self.volume_before(from)
    }

    fn volume_before(&self, index: usize) -> i64 {
        self.bars
            .get(index)
            .map_or(self.volume, |bar| bar.volume_before)
    }

    /// Forgets the oldest bars so that `keep` remain, and returns how many went.
    pub fn forget(&mut self, keep: usize) -> usize {
        let gone = self.bars.len().saturating_sub(keep);
        self.bars.drain(..gone);
        self.forgotten += gone;
        gone
    }

    /// Returns how many bars were forgotten since the engine began.
    #[must_use]
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }
}
