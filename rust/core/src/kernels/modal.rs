//! The modal price of every window of n bars.
//!
//! The histogram of a window is kept from one bar to the next in a table that a tick finds by its
//! lowest bits: what enters is added, what leaves is subtracted, all in integers. A table as long
//! as the window's range of ticks has no two of them in one place, and it grows when a range asks
//! for it. Where one tick is heaviest there is nothing to decide. Where several are, the engine's
//! own [`profile`] chooses among them, from one bar for each.

use super::{ProfileColumns, bar, points, setting};
use crate::bar::Bar;
use crate::config::ProfileSource;
use crate::error::Error;
use crate::profile::{Histogram, MAX_TICKS, ProfileRule, profile, remainder_tick, tick_of};

/// Ticks of a bar up to which its shares are looked up.
const SHORT_RANGE: usize = 16;
/// Ticks to which volume is added at once.
const LANES: usize = 8;
/// Places of the table at the beginning.
const PLACES: usize = 256;

/// The modal price of every window; a row belongs to the window that ends with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModalPrices {
    /// Price that traded most in points, NaN where there is none.
    pub price: Vec<f64>,
    /// Whether several prices traded equally much.
    pub tied: Vec<bool>,
    /// Where the modal price lies between low and high, NaN where there is none.
    pub position: Vec<f64>,
}

/// Returns the modal price, whether it is tied, and its position, for the last `window` bars of
/// every row: what [`profile`] says of these bars. Rows with fewer bars before them have none.
///
/// # Errors
/// When the window is empty, the source is `trades`, the columns differ in length, or a bar is
/// incoherent, out of range or of negative volume.
pub fn rolling_modal_price(
    columns: ProfileColumns<'_>,
    window: usize,
    rule: ProfileRule,
) -> Result<ModalPrices, Error> {
    columns.check_lengths()?;
    if window == 0 {
        return Err(setting("window", "too short", window, "at least 1 bar").into());
    }
    if rule.tick <= 0 {
        return Err(setting("tick_size", "not a tick", rule.tick, "above 0").into());
    }
    match rule.source {
        ProfileSource::Close => roll::<AtClose<false>>(columns, window, rule),
        ProfileSource::CloseVolume => roll::<AtClose<true>>(columns, window, rule),
        ProfileSource::RangeVolume => roll::<OverRange>(columns, window, rule),
        ProfileSource::Trades => {
            let expected = "close, close_volume or range_volume";
            Err(setting("profile.source", "bars hold no trades", "trades", expected).into())
        }
    }
}

/// Weight at each tick of the bars in the window.
#[derive(Debug)]
struct Table {
    weight: Vec<i64>,
    mask: usize,
}

impl Table {
    fn new() -> Self {
        Self {
            weight: vec![0; PLACES],
            mask: PLACES - 1,
        }
    }

    #[inline(always)]
    fn at(&self, tick: i64) -> i64 {
        self.weight[tick as usize & self.mask]
    }

    #[inline(always)]
    fn at_mut(&mut self, tick: i64) -> &mut i64 {
        &mut self.weight[tick as usize & self.mask]
    }

    /// Returns whether two ticks have one place.
    #[inline(always)]
    fn same_place(&self, tick: i64, other: i64) -> bool {
        (tick ^ other) as usize & self.mask == 0
    }

    /// Returns an empty table in which each of `ticks` ticks in a row has a place of its own.
    fn grown(&self, ticks: i64) -> Self {
        let places = (ticks as usize)
            .next_power_of_two()
            .max(2 * self.weight.len());
        Self {
            weight: vec![0; places],
            mask: places - 1,
        }
    }
}

/// The heaviest tick of a window.
#[derive(Clone, Copy, Debug)]
struct Heaviest {
    weight: i64,
    tick: i64,
    tied: bool,
}

/// Lowest low and highest high of a window.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    low: i64,
    high: i64,
}

/// Where the volume of a bar goes. The bars of the window stand in a ring; `place` is the newest.
trait Spread {
    fn new(window: usize, tick: i64) -> Self;
    /// Puts a bar in the place of the oldest.
    fn take(&mut self, place: usize, bar: (i64, i64, i64, i64));
    /// Returns the heaviest tick; nothing when the window is too wide.
    fn heaviest(&mut self, extremes: Extremes) -> Option<Heaviest>;
    /// Collects the ticks as heavy as the heaviest in the order in which they first traded.
    fn tied(&self, place: usize, extremes: Extremes, weight: i64, ticks: &mut Vec<i64>);
}

/// Each bar at its close: with its volume, or once.
#[derive(Debug)]
struct AtClose<const VOLUME: bool> {
    table: Table,
    entries: Vec<(i64, i64)>,
    tick: i64,
    /// Width of prices whose ticks the table surely holds.
    reach: i64,
    /// The heaviest tick and its weight, as long as no other can weigh as much.
    best_tick: i64,
    best: i64,
    /// No other tick weighs more than this.
    others: i64,
}

impl<const VOLUME: bool> AtClose<VOLUME> {
    /// Finds the heaviest tick among the ticks of the ring, and the weight of the next, without a
    /// branch on what it finds.
    #[inline(always)]
    fn search(&mut self) {
        let (mut best, mut best_tick, mut others) = (0, 0, 0);
        for &(tick, _) in &self.entries {
            let weight = self.table.at(tick);
            let heavier = weight > best;
            let other = if tick == best_tick { 0 } else { weight };
            others = if heavier { best } else { others.max(other) };
            best = if heavier { weight } else { best };
            best_tick = if heavier { tick } else { best_tick };
        }
        (self.best, self.best_tick, self.others) = (best, best_tick, others);
    }

    /// Makes the table hold the window; returns false when nothing may.
    #[cold]
    fn widen(&mut self) -> bool {
        self.others = i64::MAX;
        let ticks = self.entries.iter().map(|(tick, _)| *tick);
        let (Some(lowest), Some(highest)) = (ticks.clone().min(), ticks.max()) else {
            return false;
        };
        let ticks = highest - lowest + 1;
        if ticks > MAX_TICKS {
            return false;
        }
        if ticks > self.table.weight.len() as i64 {
            self.table = self.table.grown(ticks);
            self.reach = reach(&self.table, self.tick);
            for &(tick, weight) in &self.entries {
                *self.table.at_mut(tick) += weight;
            }
        }
        true
    }
}

/// Returns the width below which prices lie on fewer ticks than the table has places.
fn reach(table: &Table, tick: i64) -> i64 {
    (table.weight.len() as i64 - 2).saturating_mul(tick)
}

impl<const VOLUME: bool> Spread for AtClose<VOLUME> {
    fn new(window: usize, tick: i64) -> Self {
        let table = Table::new();
        Self {
            reach: reach(&table, tick),
            table,
            entries: vec![(0, 0); window],
            tick,
            best_tick: 0,
            best: 0,
            others: 0,
        }
    }

    // What enters and what leaves may share a place though their ticks differ: no other pair in
    // the window can. So places are compared here, not ticks.
    #[inline(always)]
    fn take(&mut self, place: usize, (_, _, close, volume): (i64, i64, i64, i64)) {
        let (tick, weight) = (tick_of(close, self.tick), if VOLUME { volume } else { 1 });
        let (old_tick, old_weight) = std::mem::replace(&mut self.entries[place], (tick, weight));
        let entered = self.table.at(tick) + weight;
        *self.table.at_mut(tick) = entered;
        let same = self.table.same_place(tick, self.best_tick);
        let heaviest = same | (entered > self.best);
        let other = if heaviest { self.best } else { entered };
        self.others = if same {
            self.others
        } else {
            self.others.max(other)
        };
        self.best = if heaviest { entered } else { self.best };
        self.best_tick = if heaviest { tick } else { self.best_tick };
        let left = self.table.at(old_tick) - old_weight;
        *self.table.at_mut(old_tick) = left;
        self.best = if self.table.same_place(old_tick, self.best_tick) {
            left
        } else {
            self.best
        };
    }

    #[inline(always)]
    fn heaviest(&mut self, extremes: Extremes) -> Option<Heaviest> {
        if extremes.high - extremes.low > self.reach && !self.widen() {
            return None;
        }
        if self.others >= self.best {
            self.search();
        }
        let tied = self.others == self.best;
        Some(Heaviest {
            weight: self.best,
            tick: self.best_tick,
            tied,
        })
    }

    fn tied(&self, place: usize, _: Extremes, weight: i64, ticks: &mut Vec<i64>) {
        let (newer, older) = self.entries.split_at(place + 1);
        for &(tick, entered) in older.iter().chain(newer) {
            if self.table.at(tick) == weight && entered > 0 && !ticks.contains(&tick) {
                ticks.push(tick);
            }
        }
    }
}

/// A bar's volume over its ticks: `each` to every one, and one more to those of the remainder.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    low: i64,
    ticks: i64,
    each: i64,
    rest: i64,
}

/// Each bar's volume over its range.
#[derive(Debug)]
struct OverRange {
    table: Table,
    shares: Vec<Share>,
    tick: i64,
    /// For each number of ticks, all ones where a tick belongs to the bar, then zeros.
    inside: Vec<[i64; SHORT_RANGE]>,
    /// For each number of ticks and remainder, how many contracts of it each tick gets.
    remainder: Vec<[i64; SHORT_RANGE]>,
}

impl OverRange {
    /// Adds a share to the table, or takes it back with `sign` -1.
    #[inline(always)]
    fn apply(&mut self, share: &Share, sign: i64) {
        let (ticks, rest) = (share.ticks as usize, share.rest as usize);
        let first = share.low as usize & self.table.mask;
        let lanes = if ticks <= LANES { LANES } else { SHORT_RANGE };
        if ticks > SHORT_RANGE || first + SHORT_RANGE > self.table.weight.len() {
            self.apply_wide(share, sign);
            return;
        }
        let (inside, extra) = (
            &self.inside[ticks],
            &self.remainder[ticks * SHORT_RANGE + rest],
        );
        let weights = &mut self.table.weight[first..first + SHORT_RANGE];
        for from in (0..lanes).step_by(LANES) {
            let weights = &mut weights[from..from + LANES];
            let (inside, extra) = (&inside[from..from + LANES], &extra[from..from + LANES]);
            for ((weight, inside), extra) in weights.iter_mut().zip(inside).zip(extra) {
                // Two's complement: (x ^ -1) + 1 is -x. No sum here leaves 64 bits.
                let share = (share.each & inside).wrapping_add(*extra);
                *weight = weight.wrapping_add(if sign < 0 {
                    share.wrapping_neg()
                } else {
                    share
                });
            }
        }
    }

    #[inline(never)]
    fn apply_wide(&mut self, share: &Share, sign: i64) {
        for tick in share.low..share.low + share.ticks {
            *self.table.at_mut(tick) += sign * share.each;
        }
        for j in 0..share.rest {
            *self
                .table
                .at_mut(share.low + remainder_tick(j, share.ticks, share.rest)) += sign;
        }
    }

    /// Returns whether a share gives a tick any volume.
    fn reaches(share: &Share, tick: i64) -> bool {
        let place = tick - share.low;
        (0..share.ticks).contains(&place)
            && (share.each > 0
                || (0..share.rest).any(|j| remainder_tick(j, share.ticks, share.rest) == place))
    }

    /// Returns the two stretches of the table that hold the ticks.
    #[inline(always)]
    fn stretches(&self, low: i64, ticks: usize) -> (&[i64], &[i64]) {
        let from = low as usize & self.table.mask;
        let (head, tail) = self.table.weight.split_at(from);
        if ticks <= tail.len() {
            (&tail[..ticks], &[])
        } else {
            (tail, &head[..ticks - tail.len()])
        }
    }

    #[cold]
    fn widen(&mut self, ticks: i64) {
        self.table = self.table.grown(ticks);
        for place in 0..self.shares.len() {
            let share = self.shares[place];
            self.apply(&share, 1);
        }
    }
}

/// Returns the largest weight; several chains of comparisons do not wait for each other.
#[inline(always)]
fn largest(weights: &[i64]) -> i64 {
    let mut best = [0_i64; 4];
    let mut chunks = weights.chunks_exact(4);
    for chunk in &mut chunks {
        for lane in 0..4 {
            best[lane] = best[lane].max(chunk[lane]);
        }
    }
    for weight in chunks.remainder() {
        best[0] = best[0].max(*weight);
    }
    best[0].max(best[1]).max(best[2].max(best[3]))
}

/// Returns how many weights equal one, and the sum of their places.
#[inline(always)]
fn places(weights: &[i64], heaviest: i64) -> (i64, i64) {
    let (mut seen, mut sum) = (0_i64, 0_i64);
    for (weight, place) in weights.iter().zip(0_i64..) {
        let heavy = i64::from(*weight == heaviest);
        seen = seen.wrapping_add(heavy);
        sum = sum.wrapping_add(heavy.wrapping_neg() & place);
    }
    (seen, sum)
}

impl Spread for OverRange {
    fn new(window: usize, tick: i64) -> Self {
        let mut inside = vec![[0; SHORT_RANGE]; SHORT_RANGE + 1];
        let mut remainder = vec![[0; SHORT_RANGE]; (SHORT_RANGE + 1) * SHORT_RANGE];
        for ticks in 1..=SHORT_RANGE {
            inside[ticks][..ticks].fill(-1);
            for rest in 1..ticks {
                for j in 0..rest {
                    let place = remainder_tick(j as i64, ticks as i64, rest as i64);
                    remainder[ticks * SHORT_RANGE + rest][place as usize] += 1;
                }
            }
        }
        Self {
            table: Table::new(),
            shares: vec![Share::default(); window],
            tick,
            inside,
            remainder,
        }
    }

    #[inline(always)]
    fn take(&mut self, place: usize, (low, high, _, volume): (i64, i64, i64, i64)) {
        let (low, high) = (tick_of(low, self.tick), tick_of(high, self.tick));
        let ticks = high - low + 1;
        let old = self.shares[place];
        self.apply(&old, -1);
        // A bar too wide for any profile is left out; its windows have none.
        let share = if ticks > MAX_TICKS {
            Share::default()
        } else {
            Share {
                low,
                ticks,
                each: volume / ticks,
                rest: volume % ticks,
            }
        };
        self.shares[place] = share;
        if ticks > self.table.weight.len() as i64 && share.ticks > 0 {
            self.widen(ticks);
        } else {
            self.apply(&share, 1);
        }
    }

    #[inline(always)]
    fn heaviest(&mut self, extremes: Extremes) -> Option<Heaviest> {
        let low = tick_of(extremes.low, self.tick);
        let ticks = tick_of(extremes.high, self.tick) - low + 1;
        if ticks > self.table.weight.len() as i64 {
            if ticks > MAX_TICKS {
                return None;
            }
            self.widen(ticks);
        }
        let (first, second) = self.stretches(low, ticks as usize);
        let weight = largest(first).max(largest(second));
        let (seen, sum) = places(first, weight);
        let (seen_after, sum_after) = places(second, weight);
        // With one heaviest tick the sum of places is its place.
        let place = sum + sum_after + seen_after * first.len() as i64;
        Some(Heaviest {
            weight,
            tick: low + place,
            tied: seen + seen_after > 1,
        })
    }

    fn tied(&self, place: usize, extremes: Extremes, weight: i64, ticks: &mut Vec<i64>) {
        let (newer, older) = self.shares.split_at(place + 1);
        let first_bar = |tick: i64| {
            let mut bars = older.iter().chain(newer);
            bars.position(|share| Self::reaches(share, tick))
                .unwrap_or(usize::MAX)
        };
        let (low, high) = (
            tick_of(extremes.low, self.tick),
            tick_of(extremes.high, self.tick),
        );
        ticks.extend((low..=high).filter(|tick| self.table.at(*tick) == weight));
        // Stable: of those that begin with the same bar the lowest stays first.
        ticks.sort_by_cached_key(|tick| first_bar(*tick));
    }
}

#[inline(always)]
fn roll<S: Spread>(
    columns: ProfileColumns<'_>,
    window: usize,
    rule: ProfileRule,
) -> Result<ModalPrices, Error> {
    let rows = columns.rows();
    let mut found = ModalPrices {
        price: vec![0.0; rows],
        tied: vec![false; rows],
        position: vec![0.0; rows],
    };
    if let Some(row) = (0..rows.min(window)).find(|row| !columns.accepts(*row)) {
        return Err(columns.refuse(row).into());
    }
    let beginning = rows.min(window - 1);
    found.price[..beginning].fill(f64::NAN);
    found.position[..beginning].fill(f64::NAN);
    if rows < window {
        return Ok(found);
    }
    let mut spread = S::new(window, rule.tick);
    let mut chooser = Chooser::new(rule);
    // Extremes from each place of the last block to its end (as in `volatility::rolling`).
    let mut behind = vec![
        Extremes {
            low: i64::MAX,
            high: i64::MIN
        };
        window + 1
    ];
    for start in (0..rows).step_by(window) {
        let end = rows.min(start + window);
        let mut ahead = behind[window];
        let block = columns.slice(start..end);
        if let Some(place) = (0..end - start).find(|place| !block.accepts(*place)) {
            return Err(columns.refuse(start + place).into());
        }
        let bars = block
            .low
            .iter()
            .zip(block.high)
            .zip(block.close.iter().zip(block.volume));
        let out = found.price[start..end]
            .iter_mut()
            .zip(&mut found.tied[start..end])
            .zip(&mut found.position[start..end]);
        for ((place, (((low, high), (close, volume)), rest)), ((price, tied), position)) in
            bars.zip(&behind[1..]).enumerate().zip(out)
        {
            spread.take(place, (*low, *high, *close, *volume));
            ahead = Extremes {
                low: ahead.low.min(*low),
                high: ahead.high.max(*high),
            };
            let extremes = Extremes {
                low: ahead.low.min(rest.low),
                high: ahead.high.max(rest.high),
            };
            if start + place < beginning {
                continue;
            }
            (*price, *tied, *position) = match spread.heaviest(extremes) {
                Some(best) if best.weight > 0 && !best.tied => {
                    let price = best.tick * rule.tick;
                    (points(price), false, self::position(price, extremes))
                }
                Some(best) if best.weight > 0 => {
                    spread.tied(place, extremes, best.weight, &mut chooser.ticks);
                    chooser.choose(extremes)
                }
                _ => (f64::NAN, false, f64::NAN),
            };
        }
        let mut backwards = behind[window];
        for ((low, high), behind) in block.low.iter().zip(block.high).zip(&mut behind).rev() {
            backwards = Extremes {
                low: backwards.low.min(*low),
                high: backwards.high.max(*high),
            };
            *behind = backwards;
        }
    }
    Ok(found)
}

/// Lets the engine choose among equally heavy ticks.
struct Chooser {
    histogram: Histogram,
    ticks: Vec<i64>,
    bars: Vec<Bar>,
    rule: ProfileRule,
}

impl Chooser {
    fn new(rule: ProfileRule) -> Self {
        Self {
            histogram: Histogram::default(),
            ticks: Vec::new(),
            bars: Vec::new(),
            rule: ProfileRule {
                source: ProfileSource::Close,
                ..rule
            },
        }
    }

    #[inline(never)]
    fn choose(&mut self, extremes: Extremes) -> (f64, bool, f64) {
        let close = |tick| bar(extremes.low, extremes.high, tick * self.rule.tick, 1);
        self.bars.clear();
        self.bars.extend(self.ticks.drain(..).map(close));
        match profile(&mut self.histogram, &self.bars, 0, &[], self.rule) {
            Some(found) => (
                points(found.modal_price),
                found.modal_tied,
                found.modal_position,
            ),
            None => (f64::NAN, false, f64::NAN),
        }
    }
}

/// Returns where a price lies between low and high, as [`profile`] does.
#[inline(always)]
fn position(price: i64, extremes: Extremes) -> f64 {
    if extremes.high == extremes.low {
        0.5
    } else {
        (price - extremes.low) as f64 / (extremes.high - extremes.low) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tie;
    use crate::instrument::NANOS_PER_POINT;
    use proptest::prelude::*;

    const SOURCES: [ProfileSource; 3] = [
        ProfileSource::Close,
        ProfileSource::CloseVolume,
        ProfileSource::RangeVolume,
    ];
    const TIES: [Tie; 3] = [Tie::Middle, Tie::Earliest, Tie::Lowest];

    /// Columns of bars: high, low, close, volume.
    type Market = [Vec<i64>; 4];

    fn columns(market: &Market) -> ProfileColumns<'_> {
        let [high, low, close, volume] = market;
        ProfileColumns {
            high,
            low,
            close,
            volume,
        }
    }

    /// Compares every window with the engine's profile, and returns how many were tied and not.
    fn compare(market: &Market, window: usize, rule: ProfileRule) -> (usize, usize) {
        let columns = columns(market);
        let found = rolling_modal_price(columns, window, rule).unwrap();
        let bars = columns.bars();
        let mut histogram = Histogram::default();
        let mut seen = (0, 0);
        for row in 0..columns.rows() {
            let expected = (row + 1 >= window)
                .then(|| &bars[row + 1 - window..=row])
                .and_then(|bars| profile(&mut histogram, bars, 0, &[], rule));
            let (price, tied, position) = match expected {
                Some(expected) => {
                    seen.0 += usize::from(expected.modal_tied);
                    seen.1 += usize::from(!expected.modal_tied);
                    let price = expected.modal_price as f64 / NANOS_PER_POINT;
                    (price, expected.modal_tied, expected.modal_position)
                }
                None => (f64::NAN, false, f64::NAN),
            };
            let about = format!("row {row}, window {window}, {rule:?}");
            assert_eq!(
                found.price[row].to_bits(),
                price.to_bits(),
                "price, {about}"
            );
            assert_eq!(found.tied[row], tied, "tied, {about}");
            assert_eq!(
                found.position[row].to_bits(),
                position.to_bits(),
                "position, {about}"
            );
        }
        seen
    }

    /// A walk in steps of `tick`, with `jump` now and then.
    fn walk(rows: usize, tick: i64, jump: i64, volumes: u64, seed: u64) -> Market {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) % below) as i64
        };
        let mut market: Market = Default::default();
        let mut close = 4_000 * tick;
        for _ in 0..rows {
            let open = close;
            close += tick * (draw(7) - 3)
                + if draw(40) == 0 {
                    jump * (draw(3) - 1)
                } else {
                    0
                };
            let low = open.min(close) - tick * draw(3);
            let bar = [open.max(close) + tick * draw(3), low, close, draw(volumes)];
            for (column, value) in market.iter_mut().zip(bar) {
                column.push(value);
            }
        }
        market
    }

    #[test]
    fn equals_the_profile_of_every_window_on_walks() {
        let mut seen = (0, 0);
        for (jump, volumes) in [(0, 6), (0, 5_000), (3_000, 40), (20_000, 900), (1 << 23, 9)] {
            let market = walk(400, 250, jump * 250, volumes, 11 + jump as u64);
            for source in SOURCES {
                for tie in TIES {
                    for window in [1, 2, 15, 64, 300] {
                        let rule = ProfileRule {
                            source,
                            tie,
                            tick: 250,
                        };
                        let (tied, clear) = compare(&market, window, rule);
                        seen = (seen.0 + tied, seen.1 + clear);
                    }
                }
            }
        }
        assert!(seen.0 > 10_000 && seen.1 > 10_000, "{seen:?}");
    }

    fn bars() -> impl Strategy<Value = Vec<(i64, i64, i64, i64)>> {
        let price = prop_oneof![8 => -30_i64..30, 1 => -3_000_i64..3_000];
        let volume = prop_oneof![1 => Just(0_i64), 6 => 0_i64..12, 2 => 0_i64..(1 << 32)];
        prop::collection::vec((price.clone(), price.clone(), price, volume), 1..80)
    }

    proptest! {
        #[test]
        fn prop_equals_the_profile_of_every_window(
            bars in bars(),
            window in 1_usize..20,
            source in 0_usize..3,
            tie in 0_usize..3,
            tick in 1_i64..5,
        ) {
            let mut market: Market = Default::default();
            for (a, b, c, volume) in bars {
                let mut sorted = [a, b, c];
                sorted.sort_unstable();
                for (column, value) in market.iter_mut().zip([sorted[2], sorted[0], sorted[1], volume]) {
                    column.push(value);
                }
            }
            compare(&market, window, ProfileRule { source: SOURCES[source], tie: TIES[tie], tick });
        }
    }

    #[test]
    fn refuses_a_bar_that_cannot_be_counted() {
        for (column, value, name) in [(0, -1, "high"), (1, 9_000_000, "low"), (3, -1, "volume")] {
            for row in [2, 40] {
                let mut market = walk(50, 250, 0, 10, 3);
                market[column][row] = value;
                let rule = ProfileRule {
                    source: ProfileSource::Close,
                    tie: Tie::Lowest,
                    tick: 250,
                };
                let error = rolling_modal_price(columns(&market), 15, rule).unwrap_err();
                let Error::Data(error) = error else {
                    panic!("{error}")
                };
                assert_eq!((error.row, error.column), (row, name));
            }
        }
    }
}
