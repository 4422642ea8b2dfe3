//! Volume at price on the tick grid. Invariant: the histogram sums to what went in.

use crate::bar::Bar;
use crate::config::{ProfileSource, Tie};

/// Widest profile, in ticks; a wider range of prices has no profile.
pub const MAX_TICKS: i64 = 1 << 22;

/// Trades of one bar, at one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradedAt {
    /// Index of the bar on the tape.
    pub bar: usize,
    /// Price in 1e-9.
    pub price: i64,
    /// Contracts.
    pub size: i64,
}

/// Returns the tick nearest to a price, halves up.
#[must_use]
pub fn tick_of(price: i64, tick: i64) -> i64 {
    (price + tick / 2).div_euclid(tick)
}

/// Volume at each tick from `low_tick` up.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    low_tick: i64,
    weight: Vec<i64>,
    first_bar: Vec<u32>,
}

impl Histogram {
    /// Empties the histogram and gives it a range of ticks. Returns false when it is too wide.
    fn cover(&mut self, low_tick: i64, high_tick: i64) -> bool {
        let ticks = high_tick - low_tick + 1;
        if !(1..=MAX_TICKS).contains(&ticks) {
            return false;
        }
        self.low_tick = low_tick;
        self.weight.clear();
        self.weight.resize(ticks as usize, 0);
        self.first_bar.clear();
        self.first_bar.resize(ticks as usize, u32::MAX);
        true
    }

    fn add(&mut self, tick: i64, weight: i64, bar: u32) {
        let index = (tick - self.low_tick) as usize;
        self.weight[index] += weight;
        if weight > 0 {
            self.first_bar[index] = self.first_bar[index].min(bar);
        }
    }

    /// Spreads a bar's volume over its ticks: the quotient each, the remainder one each to ticks
    /// spaced evenly over the range.
    fn add_range(&mut self, low: i64, high: i64, volume: i64, bar: u32) {
        let ticks = high - low + 1;
        let each = volume / ticks;
        let rest = volume % ticks;
        if each > 0 {
            for tick in low..=high {
                self.add(tick, each, bar);
            }
        }
        for j in 0..rest {
            self.add(low + remainder_tick(j, ticks, rest), 1, bar);
        }
    }

    /// Returns the weight at each tick from the lowest.
    #[must_use]
    pub fn weights(&self) -> &[i64] {
        &self.weight
    }

    /// Returns the lowest tick.
    #[must_use]
    pub fn low_tick(&self) -> i64 {
        self.low_tick
    }

    /// Returns the index of the modal tick and whether others weigh as much.
    fn modal(&self, tie: Tie, low: i64, high: i64, tick: i64) -> Option<(usize, bool)> {
        let heaviest = *self.weight.iter().max()?;
        if heaviest <= 0 {
            return None;
        }
        let mut best: Option<(usize, (i64, u32))> = None;
        let mut heavy = 0;
        for (index, _) in self
            .weight
            .iter()
            .enumerate()
            .filter(|(_, weight)| **weight == heaviest)
        {
            heavy += 1;
            let price = (self.low_tick + index as i64) * tick;
            let key = match tie {
                Tie::Middle => ((2 * price - (low + high)).abs(), self.first_bar[index]),
                Tie::Earliest => (0, self.first_bar[index]),
                Tie::Lowest => (0, 0),
            };
            if best.is_none_or(|(_, smallest)| key < smallest) {
                best = Some((index, key));
            }
        }
        best.map(|(index, _)| (index, heavy > 1))
    }

    /// Returns the ends of the value area around a tick: one tick at a time toward the heavier
    /// side, of equals upward, until 70 % of the volume is inside.
    fn value_area(&self, modal: usize) -> (usize, usize) {
        let lowest = self
            .weight
            .iter()
            .position(|weight| *weight > 0)
            .unwrap_or(modal);
        let highest = self
            .weight
            .iter()
            .rposition(|weight| *weight > 0)
            .unwrap_or(modal);
        let total: i64 = self.weight.iter().sum();
        let (mut low, mut high, mut inside) = (modal, modal, self.weight[modal]);
        while 10 * inside < 7 * total {
            let above = (high < highest).then(|| self.weight[high + 1]);
            let below = (low > lowest).then(|| self.weight[low - 1]);
            match (above, below) {
                (Some(above), Some(below)) if above >= below => {
                    (high, inside) = (high + 1, inside + above)
                }
                (Some(above), None) => (high, inside) = (high + 1, inside + above),
                (_, Some(below)) => (low, inside) = (low - 1, inside + below),
                (None, None) => break,
            }
        }
        (low, high)
    }
}

/// Returns where the j-th of `rest` single contracts goes among `ticks` ticks.
#[must_use]
pub fn remainder_tick(j: i64, ticks: i64, rest: i64) -> i64 {
    ((2 * j + 1) * ticks) / (2 * rest)
}

/// What a profile says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// Price that traded most, in 1e-9.
    pub modal_price: i64,
    /// Whether several prices traded equally much.
    pub modal_tied: bool,
    /// Lower end of the value area, in 1e-9.
    pub value_area_low: i64,
    /// Upper end of the value area, in 1e-9.
    pub value_area_high: i64,
    /// Where the modal price lies between low and high.
    pub modal_position: f64,
}

/// How a profile is made.
#[derive(Clone, Copy, Debug)]
pub struct ProfileRule {
    /// Where the volume comes from.
    pub source: ProfileSource,
    /// Which of several equally heavy ticks is modal.
    pub tie: Tie,
    /// Tick in 1e-9.
    pub tick: i64,
}

/// Fills the histogram of some bars. `first` is the index of the first bar on the tape, `trades`
/// what traded in them. Returns false when there is nothing to fill it with.
pub fn fill(
    histogram: &mut Histogram,
    bars: &[Bar],
    first: usize,
    trades: &[TradedAt],
    rule: ProfileRule,
) -> bool {
    let tick = rule.tick;
    let span = |prices: &mut dyn Iterator<Item = i64>| {
        prices.fold(None, |span: Option<(i64, i64)>, price| {
            Some(span.map_or((price, price), |(low, high)| {
                (low.min(price), high.max(price))
            }))
        })
    };
    let range = match rule.source {
        ProfileSource::Close | ProfileSource::CloseVolume => {
            span(&mut bars.iter().map(|bar| bar.close))
        }
        ProfileSource::RangeVolume => span(&mut bars.iter().flat_map(|bar| [bar.low, bar.high])),
        ProfileSource::Trades => span(&mut trades.iter().map(|trade| trade.price)),
    };
    let Some((low, high)) = range else {
        return false;
    };
    if !histogram.cover(tick_of(low, tick), tick_of(high, tick)) {
        return false;
    }
    match rule.source {
        ProfileSource::Close => {
            for (bar, index) in bars.iter().zip(0..) {
                histogram.add(tick_of(bar.close, tick), 1, index);
            }
        }
        ProfileSource::CloseVolume => {
            for (bar, index) in bars.iter().zip(0..) {
                histogram.add(tick_of(bar.close, tick), bar.volume, index);
            }
        }
        ProfileSource::RangeVolume => {
            for (bar, index) in bars.iter().zip(0..) {
                histogram.add_range(
                    tick_of(bar.low, tick),
                    tick_of(bar.high, tick),
                    bar.volume,
                    index,
                );
            }
        }
        ProfileSource::Trades => {
            let mut traded = vec![false; bars.len()];
            for trade in trades {
                let bar = trade.bar - first;
                traded[bar] = true;
                histogram.add(tick_of(trade.price, tick), trade.size, bar as u32);
            }
            return traded.iter().all(|traded| *traded);
        }
    }
    true
}

/// Returns the profile of some bars, or nothing when there is none.
#[must_use]
pub fn profile(
    histogram: &mut Histogram,
    bars: &[Bar],
    first: usize,
    trades: &[TradedAt],
    rule: ProfileRule,
) -> Option<Profile> {
    if !fill(histogram, bars, first, trades, rule) {
        return None;
    }
    let low = bars.iter().map(|bar| bar.low).min()?;
    let high = bars.iter().map(|bar| bar.high).max()?;
    let (modal, modal_tied) = histogram.modal(rule.tie, low, high, rule.tick)?;
    let (area_low, area_high) = histogram.value_area(modal);
    let price = |index: usize| (histogram.low_tick + index as i64) * rule.tick;
    let modal_price = price(modal);
    let modal_position = if high == low {
        0.5
    } else {
        (modal_price - low) as f64 / (high - low) as f64
    };
    Some(Profile {
        modal_price,
        modal_tied,
        value_area_low: price(area_low),
        value_area_high: price(area_high),
        modal_position,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(low: i64, high: i64, close: i64, volume: i64) -> Bar {
        Bar {
            start: 0,
            open: close,
            high,
            low,
            close,
            volume,
            volume_before: 0,
            follows: true,
        }
    }

    fn rule(source: ProfileSource, tie: Tie) -> ProfileRule {
        ProfileRule {
            source,
            tie,
            tick: 1,
        }
    }

    #[test]
    fn range_volume_spreads_quotient_and_remainder() {
        let mut histogram = Histogram::default();
        assert!(fill(
            &mut histogram,
            &[bar(10, 13, 12, 10)],
            0,
            &[],
            rule(ProfileSource::RangeVolume, Tie::Middle)
        ));
        // 10 over 4 ticks: 2 each, 2 left over, to ticks floor(1*4/4)=1 and floor(3*4/4)=3.
        assert_eq!(histogram.weights(), &[2, 3, 2, 3]);
    }

    #[test]
    fn ties_follow_the_rule() {
        let bars = [bar(10, 20, 11, 5), bar(10, 20, 16, 5), bar(10, 20, 19, 5)];
        let mut histogram = Histogram::default();
        for (tie, price) in [(Tie::Middle, 16), (Tie::Earliest, 11), (Tie::Lowest, 11)] {
            let profile = profile(
                &mut histogram,
                &bars,
                0,
                &[],
                rule(ProfileSource::Close, tie),
            )
            .expect("a profile");
            assert_eq!((profile.modal_price, profile.modal_tied), (price, true));
        }
    }

    #[test]
    fn value_area_grows_to_the_heavier_side() {
        let bars = [
            bar(1, 5, 3, 50),
            bar(1, 5, 4, 20),
            bar(1, 5, 2, 20),
            bar(1, 5, 5, 10),
        ];
        let mut histogram = Histogram::default();
        let profile = profile(
            &mut histogram,
            &bars,
            0,
            &[],
            rule(ProfileSource::CloseVolume, Tie::Middle),
        )
        .expect("a profile");
        assert_eq!((profile.value_area_low, profile.value_area_high), (3, 4));
        assert!((profile.modal_position - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_bar_without_trades_has_no_profile() {
        let bars = [bar(1, 5, 3, 50), bar(1, 5, 4, 20)];
        let mut histogram = Histogram::default();
        let trades = [TradedAt {
            bar: 7,
            price: 3,
            size: 50,
        }];
        assert_eq!(
            profile(
                &mut histogram,
                &bars,
                7,
                &trades,
                rule(ProfileSource::Trades, Tie::Middle)
            ),
            None
        );
    }
}
