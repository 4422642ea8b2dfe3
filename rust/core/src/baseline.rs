//! The usual volume of a minute. Invariant: only bars that started before the window count, and
//! sums are of integers, so that where they began changes nothing.

use std::collections::VecDeque;

use crate::bar::Tape;
use crate::session::Session;

/// Sessions over which the usual number of bars is taken.
const USUAL_SESSIONS: usize = 20;

/// A session that has ended, as the baselines remember it.
#[derive(Clone, Copy, Debug)]
struct Day {
    session: usize,
    symbol: u32,
    volume: i64,
    bars: i64,
    /// Bars that count as usual; none for a day known only from context.
    usual_bars: Option<i64>,
    good: bool,
}

/// A baseline: volume over minutes, and whether it comes from another contract.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Contracts per minute.
    pub per_minute: f64,
    /// Symbol of the last bars it rests on.
    pub symbol: u32,
}

/// The sessions that have ended.
#[derive(Clone, Debug, Default)]
pub struct Days {
    days: VecDeque<Day>,
    older_good: Option<Day>,
}

/// A session's bars, counted.
#[derive(Clone, Copy, Debug)]
pub struct DayCount {
    /// Index of the session.
    pub session: usize,
    /// Symbol.
    pub symbol: u32,
    /// Contracts.
    pub volume: i64,
    /// Bars.
    pub bars: i64,
    /// Bars that the schedule has room for.
    pub scheduled_bars: i64,
}

impl Days {
    /// Remembers a session that has ended.
    pub fn push(&mut self, count: DayCount) {
        let good = self.is_good(&count, self.days.len());
        self.days.push_back(Day {
            session: count.session,
            symbol: count.symbol,
            volume: count.volume,
            bars: count.bars,
            usual_bars: Some(count.bars),
            good,
        });
        self.forget();
    }

    /// Puts the incoming contract's session in place of the old contract's.
    pub fn replace(&mut self, count: DayCount) {
        let place = self.days.partition_point(|day| day.session < count.session);
        let good = self.is_good(&count, place);
        let known = self
            .days
            .get(place)
            .filter(|day| day.session == count.session);
        let day = Day {
            session: count.session,
            symbol: count.symbol,
            volume: count.volume,
            bars: count.bars,
            usual_bars: known.and_then(|day| day.usual_bars),
            good,
        };
        if known.is_some() {
            self.days[place] = day;
        } else {
            self.days.insert(place, day);
        }
        self.forget();
    }

    /// A session is good with at least 80 % of the usual bars before it.
    fn is_good(&self, count: &DayCount, place: usize) -> bool {
        let mut usual: Vec<i64> = self
            .days
            .range(..place)
            .rev()
            .filter_map(|day| day.usual_bars)
            .take(USUAL_SESSIONS)
            .collect();
        if usual.is_empty() {
            return 2 * count.bars >= count.scheduled_bars;
        }
        usual.sort_unstable();
        let middle = usual[usual.len() / 2] + usual[(usual.len() - 1) / 2];
        10 * count.bars >= 4 * middle
    }

    fn forget(&mut self) {
        while self.days.len() > 3 * USUAL_SESSIONS {
            if let Some(day) = self.days.pop_front().filter(|day| day.good) {
                self.older_good = Some(day);
            }
        }
    }

    /// Returns the last good session's volume per minute.
    #[must_use]
    pub fn last_good(&self, bar_minutes: f64) -> Option<Usual> {
        let day = self
            .days
            .iter()
            .rev()
            .find(|day| day.good)
            .or(self.older_good.as_ref())?;
        Some(Usual {
            per_minute: per_minute(day.volume, day.bars, bar_minutes),
            symbol: day.symbol,
        })
    }
}

/// Returns contracts per minute covered by bars.
#[must_use]
pub fn per_minute(volume: i64, bars: i64, bar_minutes: f64) -> f64 {
    volume as f64 / (bars as f64 * bar_minutes)
}

/// One session's share of a slot.
#[derive(Clone, Copy, Debug)]
struct Share {
    session: usize,
    symbol: u32,
    volume: i64,
    bars: i64,
}

/// The last sessions of one slot; one more than counts, so that one can be taken back.
#[derive(Clone, Debug, Default)]
struct Slot {
    shares: VecDeque<Share>,
    volume: i64,
    bars: i64,
}

impl Slot {
    /// Adds a session's share at its place, nearly always the last.
    fn put(&mut self, share: Share, counted: usize) {
        let is_newest = self
            .shares
            .back()
            .is_none_or(|newest| newest.session < share.session);
        if !is_newest {
            let place = self
                .shares
                .partition_point(|known| known.session < share.session);
            self.shares.insert(place, share);
            self.count_afresh(counted);
            return;
        }
        self.shares.push_back(share);
        self.volume += share.volume;
        self.bars += share.bars;
        if self.shares.len() > counted {
            let oldest = self.shares[self.shares.len() - 1 - counted];
            self.volume -= oldest.volume;
            self.bars -= oldest.bars;
        }
        if self.shares.len() > counted + 1 {
            self.shares.pop_front();
        }
    }

    fn take_back(&mut self, session: usize, counted: usize) {
        if self.shares.iter().any(|share| share.session == session) {
            self.shares.retain(|share| share.session != session);
            self.count_afresh(counted);
        }
    }

    fn count_afresh(&mut self, counted: usize) {
        let newest = self.shares.iter().rev().take(counted);
        (self.volume, self.bars) = newest.fold((0, 0), |(volume, bars), share| {
            (volume + share.volume, bars + share.bars)
        });
    }
}

/// The same time of day in earlier sessions.
#[derive(Clone, Debug)]
pub struct TimeOfDay {
    slots: Vec<Slot>,
    /// Sessions that count.
    counted: usize,
    /// Fewest sessions.
    fewest: usize,
    /// Distance between slots in ns.
    step: i64,
    /// Length of a slot in ns.
    width: i64,
}

impl TimeOfDay {
    /// Returns a baseline over `counted` sessions, at least `fewest`, for slots of `width` ns every
    /// `step` ns.
    #[must_use]
    pub fn new(counted: usize, fewest: usize, step: i64, width: i64) -> Self {
        Self {
            slots: Vec::new(),
            counted,
            fewest,
            step,
            width,
        }
    }

    /// Remembers a session that has ended; its bars are those on the tape from `from` on.
    pub fn push(&mut self, index: usize, session: &Session, symbol: u32, tape: &Tape, from: usize) {
        let to = tape.len();
        let slots = (session.close - session.open - self.width).div_euclid(self.step) + 1;
        if slots <= 0 {
            return;
        }
        if self.slots.len() < slots as usize {
            self.slots.resize(slots as usize, Slot::default());
        }
        let bars = tape.bars();
        let (mut low, mut high) = (from, from);
        for (slot, k) in self.slots.iter_mut().zip(0..slots) {
            let start = session.open + k * self.step;
            let end = start + self.width;
            while low < to && bars[low].start < start {
                low += 1;
            }
            high = high.max(low);
            while high < to && bars[high].start < end {
                high += 1;
            }
            if high > low && session.holds(start, end) {
                let share = Share {
                    session: index,
                    symbol,
                    volume: tape.volume_between(low, high),
                    bars: (high - low) as i64,
                };
                slot.put(share, self.counted);
            }
        }
    }

    /// Forgets a session, so that another contract's can take its place.
    pub fn take_back(&mut self, session: usize) {
        for slot in &mut self.slots {
            slot.take_back(session, self.counted);
        }
    }

    /// Returns the usual volume of the slot that starts `offset` ns after the open.
    #[must_use]
    pub fn usual(&self, offset: i64, bar_minutes: f64) -> Option<Usual> {
        let slot = self.slots.get(usize::try_from(offset / self.step).ok()?)?;
        if slot.shares.len() < self.fewest {
            return None;
        }
        let symbol = slot.shares.back()?.symbol;
        Some(Usual {
            per_minute: per_minute(slot.volume, slot.bars, bar_minutes),
            symbol,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(session: usize, bars: i64) -> DayCount {
        DayCount {
            session,
            symbol: 0,
            volume: bars * 10,
            bars,
            scheduled_bars: 100,
        }
    }

    #[test]
    fn a_thin_session_is_passed_over() {
        let mut days = Days::default();
        days.push(count(0, 49));
        assert_eq!(days.last_good(1.0), None);
        days.push(count(1, 90));
        days.push(DayCount {
            volume: 1,
            ..count(2, 50)
        });
        assert_eq!(
            days.last_good(1.0).map(|usual| usual.per_minute),
            Some(10.0)
        );
    }

    #[test]
    fn replacing_keeps_the_usual_count() {
        let mut days = Days::default();
        days.push(count(0, 100));
        days.push(count(1, 100));
        days.replace(DayCount {
            symbol: 1,
            volume: 80,
            ..count(1, 80)
        });
        assert_eq!(
            days.last_good(1.0),
            Some(Usual {
                per_minute: 1.0,
                symbol: 1
            })
        );
        days.replace(DayCount {
            symbol: 1,
            volume: 80,
            ..count(1, 79)
        });
        assert_eq!(
            days.last_good(1.0),
            Some(Usual {
                per_minute: 10.0,
                symbol: 0
            })
        );
    }

    #[test]
    fn a_slot_takes_back_its_newest_session() {
        let mut slot = Slot::default();
        for session in 0..4 {
            slot.put(
                Share {
                    session,
                    symbol: 0,
                    volume: 1 << session,
                    bars: 1,
                },
                2,
            );
        }
        assert_eq!((slot.volume, slot.bars), (4 + 8, 2));
        slot.take_back(3, 2);
        assert_eq!((slot.volume, slot.bars), (2 + 4, 2));
    }
}
