//! From bars to armed signals. Invariant: a window is judged once, at its decision time, from bars
//! that have ended by then.

use std::collections::VecDeque;

use crate::bar::{BarInput, MINUTE_NS, Tape};
use crate::baseline::{DayCount, Days, TimeOfDay, Usual, per_minute};
use crate::config::{BaselineMode, Basis, Config, Frame};
use crate::profile::{Histogram, ProfileRule, TradedAt, profile};
use crate::record::{Cluster, Event, Sink};
use crate::session::Session;
use crate::signal::{Armed, direction, min_strength, strength};

/// A time that never comes.
pub const NEVER: i64 = i64::MAX;

/// Returns minutes as ns, rounded down to whole bars.
#[must_use]
pub fn floor_to_bars(minutes: i64, interval: i64) -> i64 {
    (minutes * MINUTE_NS).div_euclid(interval) * interval
}

/// Returns minutes as ns, rounded up to whole bars.
#[must_use]
pub fn ceil_to_bars(minutes: i64, interval: i64) -> i64 {
    bars_in(minutes, interval) * interval
}

/// Returns minutes as a number of bars, rounded up.
#[must_use]
pub fn bars_in(minutes: i64, interval: i64) -> i64 {
    -(-minutes * MINUTE_NS).div_euclid(interval)
}

/// The configuration of the detector in bars and ns.
#[derive(Clone, Debug)]
struct Rules {
    interval: i64,
    bar_minutes: f64,
    width: i64,
    width_minutes: f64,
    fewest_bars: usize,
    /// From the window's start to its decision.
    delay: i64,
    profile: (i64, i64),
    momentum: (i64, i64),
    rolling_bars: usize,
    to_date_bars: usize,
    rank_span: i64,
    cooldown: i64,
    profile_rule: ProfileRule,
    /// Bars to keep on the tape beyond the session.
    keep: usize,
}

impl Rules {
    fn new(config: &Config, interval: i64, tick: i64, keep: usize) -> Self {
        let width = ceil_to_bars(config.cluster.minutes, interval);
        let profile = (
            floor_to_bars(config.profile.start_minute, interval),
            ceil_to_bars(config.profile.end_minute, interval),
        );
        let momentum = (
            floor_to_bars(config.momentum.start_minute, interval),
            ceil_to_bars(config.momentum.end_minute, interval),
        );
        let bars = width / interval;
        let rolling_bars = bars_in(config.baseline.bars, interval) as usize;
        Self {
            interval,
            bar_minutes: interval as f64 / MINUTE_NS as f64,
            width,
            width_minutes: width as f64 / MINUTE_NS as f64,
            fewest_bars: ((0.8 * bars as f64 - 1e-9).ceil() as usize).max(1),
            delay: width.max(profile.1).max(momentum.1),
            profile,
            momentum,
            rolling_bars,
            to_date_bars: bars_in(config.baseline.min_bars, interval) as usize,
            rank_span: (config.rank.hours * 60.0 * MINUTE_NS as f64).round() as i64,
            cooldown: config.rank.cooldown_minutes * MINUTE_NS,
            profile_rule: ProfileRule {
                source: config.profile.source,
                tie: config.profile.tie,
                tick,
            },
            keep: keep.max(rolling_bars + 1),
        }
    }
}

/// How many windows ended where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounts {
    /// Windows judged.
    pub windows: u64,
    /// With too few bars.
    pub thin: u64,
    /// Without a baseline.
    pub warming_up: u64,
    /// Below the threshold.
    pub quiet: u64,
    /// Clusters.
    pub clusters: u64,
}

/// The session under way.
#[derive(Clone, Debug)]
struct Today {
    index: usize,
    session: Session,
    first: usize,
    /// Start of the next aligned window.
    next_window: i64,
    /// Starts of sliding windows that wait for their decision.
    waiting: VecDeque<i64>,
    usual: Option<Usual>,
    /// Decision time and volume ratio of the clusters that reached ranking.
    ranked: Vec<(i64, f64)>,
    last_unsuppressed: Option<i64>,
    armed: i64,
    /// The last window judged: its first bar, the bar after its last, and its end.
    low: usize,
    high: usize,
    judged_until: i64,
}

/// A context session being read.
#[derive(Clone, Debug)]
struct Context {
    index: usize,
    session: Session,
    first: usize,
}

/// Finds clusters and arms signals.
#[derive(Clone, Debug)]
pub struct Detector {
    rules: Rules,
    tape: Tape,
    symbol: u32,
    /// First bar of the current symbol.
    symbol_first: usize,
    /// First bar that the rolling baseline may use.
    rolling_first: usize,
    days: Days,
    time_of_day: TimeOfDay,
    today: Option<Today>,
    context: Option<Context>,
    /// Symbol of each stretch of the tape: first bar and symbol.
    stretches: Vec<(usize, u32)>,
    trades: Vec<TradedAt>,
    waiting_trades: Vec<(i64, i64, i64)>,
    histogram: Histogram,
    counts: WindowCounts,
}

/// What the detector needs to know from outside to judge a window.
#[derive(Clone, Copy, Debug)]
pub struct Judging {
    /// Instant at which the window is judged.
    pub instant: i64,
    /// Time of the last confirmed signal.
    pub last_confirmed: Option<i64>,
}

impl Detector {
    /// Returns a detector without memory. `keep` is how many bars others need on the tape.
    #[must_use]
    pub fn new(config: &Config, interval: i64, tick: i64, keep: usize) -> Self {
        let rules = Rules::new(config, interval, tick, keep);
        let step = match config.cluster.frame {
            Frame::Aligned => rules.width,
            Frame::Sliding => interval,
        };
        Self {
            time_of_day: TimeOfDay::new(
                config.baseline.sessions as usize,
                config.baseline.min_sessions as usize,
                step,
                rules.width,
            ),
            rules,
            tape: Tape::default(),
            symbol: 0,
            symbol_first: 0,
            rolling_first: 0,
            days: Days::default(),
            today: None,
            context: None,
            stretches: Vec::new(),
            trades: Vec::new(),
            waiting_trades: Vec::new(),
            histogram: Histogram::default(),
            counts: WindowCounts::default(),
        }
    }

    /// Returns the tape.
    #[must_use]
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Returns the first bar on the tape of the current symbol.
    #[must_use]
    pub fn symbol_first(&self) -> usize {
        self.symbol_first
    }

    /// Returns the session under way and its index.
    #[must_use]
    pub fn session(&self) -> Option<(usize, &Session)> {
        self.today
            .as_ref()
            .map(|today| (today.index, &today.session))
    }

    /// Returns the counts.
    #[must_use]
    pub fn counts(&self) -> WindowCounts {
        self.counts
    }

    /// Returns when the next window falls due.
    #[must_use]
    #[inline]
    pub fn due(&self, config: &Config) -> i64 {
        let Some(today) = &self.today else {
            return NEVER;
        };
        let start = match config.cluster.frame {
            Frame::Aligned => {
                if today.next_window + self.rules.width > today.session.close {
                    return NEVER;
                }
                today.next_window
            }
            Frame::Sliding => match today.waiting.front() {
                Some(start) => *start,
                None => return NEVER,
            },
        };
        (start + self.rules.delay).min(today.session.close)
    }

    /// Begins a contract: its bars share no window, range or return with what came before.
    pub fn change_symbol(&mut self, symbol: u32, config: &Config) {
        self.close_context(config);
        self.symbol = symbol;
        self.symbol_first = self.tape.len();
        self.stretches.push((self.tape.len(), symbol));
    }

    /// Begins a session.
    pub fn open_session(&mut self, index: usize, session: &Session, config: &Config) {
        self.close_context(config);
        self.forget();
        let usual = match config.baseline.mode {
            BaselineMode::PreviousSession => self.days.last_good(self.rules.bar_minutes),
            _ => None,
        };
        let first = self.tape.len();
        self.today = Some(Today {
            index,
            session: session.clone(),
            first,
            next_window: session.open,
            waiting: VecDeque::new(),
            usual,
            ranked: Vec::new(),
            last_unsuppressed: None,
            armed: 0,
            low: first,
            high: first,
            judged_until: session.open,
        });
        self.trades.clear();
    }

    /// Ends the session and remembers its volume.
    pub fn close_session(&mut self, config: &Config) {
        if let Some(today) = self.today.take() {
            self.days
                .push(self.count(today.index, &today.session, today.first));
            self.remember_slots(today.index, &today.session, today.first, config);
        }
    }

    fn count(&self, index: usize, session: &Session, first: usize) -> DayCount {
        DayCount {
            session: index,
            symbol: self.symbol,
            volume: self.tape.volume_between(first, self.tape.len()),
            bars: (self.tape.len() - first) as i64,
            scheduled_bars: -(session.open - session.close).div_euclid(self.rules.interval),
        }
    }

    fn remember_slots(&mut self, index: usize, session: &Session, first: usize, config: &Config) {
        if config.baseline.mode == BaselineMode::TimeOfDay {
            self.time_of_day
                .push(index, session, self.symbol, &self.tape, first);
        }
    }

    /// Takes a bar of the incoming contract's last session.
    pub fn push_context(
        &mut self,
        bar: &BarInput,
        index: usize,
        session: &Session,
        config: &Config,
    ) {
        let starts_stretch = self.context.is_none();
        if self
            .context
            .as_ref()
            .is_none_or(|context| context.index != index)
        {
            self.close_context(config);
            self.context = Some(Context {
                index,
                session: session.clone(),
                first: self.tape.len(),
            });
        }
        if starts_stretch {
            self.rolling_first = self.tape.len();
        }
        let follows = self
            .context
            .as_ref()
            .is_some_and(|context| context.first < self.tape.len());
        self.tape.push(bar, follows);
    }

    /// Ends a context session, which takes the old contract's place in the baselines.
    fn close_context(&mut self, config: &Config) {
        if let Some(context) = self.context.take() {
            self.days
                .replace(self.count(context.index, &context.session, context.first));
            self.time_of_day.take_back(context.index);
            self.remember_slots(context.index, &context.session, context.first, config);
        }
    }

    /// Takes a bar that has ended.
    #[inline]
    pub fn push(&mut self, bar: &BarInput, config: &Config) {
        let Some(today) = &mut self.today else {
            return;
        };
        let index = self.tape.len();
        self.tape.push(bar, index > today.first);
        if config.cluster.frame == Frame::Sliding {
            let end = bar.start + self.rules.interval;
            let start = end - self.rules.width;
            if start >= today.session.open && end <= today.session.close {
                today.waiting.push_back(start);
            }
        }
        if !self.waiting_trades.is_empty() {
            let (from, to) = (bar.start, bar.start + self.rules.interval);
            let held = self
                .waiting_trades
                .iter()
                .filter(|(time, ..)| (from..to).contains(time));
            self.trades.extend(held.map(|&(_, price, size)| TradedAt {
                bar: index,
                price,
                size,
            }));
            self.waiting_trades.retain(|(time, ..)| *time >= to);
        }
    }

    /// Returns whether a bar between two windows is only put on the tape.
    #[must_use]
    pub fn is_plain(&self, config: &Config) -> bool {
        self.today.is_some()
            && config.cluster.frame == Frame::Aligned
            && self.waiting_trades.is_empty()
    }

    /// Takes bars that are only put on the tape, as [`Self::is_plain`] says.
    pub fn push_plain(&mut self, bars: impl ExactSizeIterator<Item = BarInput>) {
        let first = self.today.as_ref().map_or(0, |today| today.first);
        let follows = self.tape.len() > first;
        self.tape.extend(bars, follows);
    }

    /// Takes a trade, which comes before the bar that holds it.
    pub fn push_trade(&mut self, time: i64, price: i64, size: i64) {
        self.waiting_trades.push((time, price, size));
    }

    /// Forgets bars that no rule can reach any more.
    fn forget(&mut self) {
        if self.tape.len() < 4 * self.rules.keep + 4096 {
            return;
        }
        let gone = self.tape.forget(self.rules.keep);
        self.symbol_first = self.symbol_first.saturating_sub(gone);
        self.rolling_first = self.rolling_first.saturating_sub(gone);
        for stretch in &mut self.stretches {
            stretch.0 = stretch.0.saturating_sub(gone);
        }
        let current = self
            .stretches
            .iter()
            .rposition(|stretch| stretch.0 == 0)
            .unwrap_or(0);
        self.stretches.drain(..current);
    }

    /// Judges the window that is due, and returns the signal it armed.
    pub fn judge(
        &mut self,
        judging: Judging,
        config: &Config,
        sink: &mut dyn Sink,
    ) -> Option<Armed> {
        let window = self.next_window(config)?;
        self.counts.windows += 1;
        let today = self.today.as_ref()?;
        let (low, high) = (today.low, today.high);
        if high - low < self.rules.fewest_bars {
            self.counts.thin += 1;
            return None;
        }
        let Some(usual) = self.usual(window, low, config) else {
            self.counts.warming_up += 1;
            return None;
        };
        let volume = self.tape.volume_between(low, high);
        let volume_ratio = match config.cluster.basis {
            Basis::Minute => volume as f64 / usual.per_minute,
            Basis::Window => volume as f64 / (usual.per_minute * self.rules.width_minutes),
        };
        if volume_ratio < config.cluster.threshold {
            self.counts.quiet += 1;
            return None;
        }
        self.counts.clusters += 1;
        let mut row = self.describe(window, judging.instant, usual, volume_ratio, config)?;
        let armed = self.examine(&mut row, judging, config);
        sink.take(Event::Cluster(row));
        armed
    }

    /// Takes the next window off the list and moves the session's pointers to its bars.
    #[inline]
    fn next_window(&mut self, config: &Config) -> Option<i64> {
        let today = self.today.as_mut()?;
        let start = match config.cluster.frame {
            Frame::Aligned => {
                today.next_window += self.rules.width;
                today.next_window - self.rules.width
            }
            Frame::Sliding => today.waiting.pop_front()?,
        };
        let end = start + self.rules.width;
        let bars = self.tape.bars();
        if start >= today.judged_until {
            today.low = today.high;
        }
        today.low += bars[today.low..]
            .iter()
            .take_while(|bar| bar.start < start)
            .count();
        today.high = today.high.max(today.low);
        if bars.last().is_some_and(|bar| bar.start < end) {
            today.high = bars.len();
        } else {
            today.high += bars[today.high..]
                .iter()
                .take_while(|bar| bar.start < end)
                .count();
        }
        today.judged_until = end;
        Some(start)
    }

    /// Returns the usual volume of a minute for a window whose first bar is `low`.
    fn usual(&self, window: i64, low: usize, config: &Config) -> Option<Usual> {
        let today = self.today.as_ref()?;
        let over = |from: usize, symbol: u32| Usual {
            per_minute: per_minute(
                self.tape.volume_between(from, low),
                (low - from) as i64,
                self.rules.bar_minutes,
            ),
            symbol,
        };
        match config.baseline.mode {
            BaselineMode::PreviousSession => today.usual,
            BaselineMode::Rolling => {
                let from = low.checked_sub(self.rules.rolling_bars)?;
                (from >= self.rolling_first).then(|| over(from, self.symbol_at(from)))
            }
            BaselineMode::SessionToDate => (low - today.first >= self.rules.to_date_bars)
                .then(|| over(today.first, self.symbol)),
            BaselineMode::TimeOfDay => self
                .time_of_day
                .usual(window - today.session.open, self.rules.bar_minutes),
            BaselineMode::Fixed => Some(Usual {
                per_minute: config.baseline.value,
                symbol: self.symbol,
            }),
        }
    }

    fn symbol_at(&self, index: usize) -> u32 {
        self.stretches
            .iter()
            .rev()
            .find(|(first, _)| *first <= index)
            .map_or(self.symbol, |(_, symbol)| *symbol)
    }

    /// Describes a cluster by all that is known of its bars.
    fn describe(
        &mut self,
        window: i64,
        instant: i64,
        usual: Usual,
        volume_ratio: f64,
        config: &Config,
    ) -> Option<Cluster> {
        let today = self.today.as_ref()?;
        let bars = &self.tape.bars()[today.low..today.high];
        let profile_from = self.bar_at(today, window, self.rules.profile.0);
        let profile_to = self.bar_at(today, window, self.rules.profile.1);
        let traded_from = self
            .trades
            .partition_point(|trade| trade.bar < profile_from);
        let traded_to = self.trades.partition_point(|trade| trade.bar < profile_to);
        let profile = profile(
            &mut self.histogram,
            &self.tape.bars()[profile_from..profile_to],
            profile_from,
            &self.trades[traded_from..traded_to],
            self.rules.profile_rule,
        );
        Some(Cluster {
            symbol: self.symbol,
            window_start: window,
            decision_time: instant,
            open: bars.first()?.open,
            high: bars.iter().map(|bar| bar.high).max()?,
            low: bars.iter().map(|bar| bar.low).min()?,
            close: bars.last()?.close,
            volume: self.tape.volume_between(today.low, today.high),
            minutes: bars.len() as f64 * self.rules.bar_minutes,
            baseline: usual.per_minute,
            baseline_source: source_word(config.baseline.mode, usual.symbol != self.symbol),
            volume_ratio,
            rank: None,
            modal_price: profile.map(|profile| profile.modal_price),
            modal_tied: profile.map(|profile| profile.modal_tied),
            value_area_low: profile.map(|profile| profile.value_area_low),
            value_area_high: profile.map(|profile| profile.value_area_high),
            modal_position: profile.map(|profile| profile.modal_position),
            momentum: self.momentum(today, window),
            direction: None,
            strength: None,
            reason: "",
        })
    }

    /// Returns the first bar of the session at or after `offset` from a window whose bars are the
    /// last judged. An interval has at most one bar, so it is not far from the window's first.
    fn bar_at(&self, today: &Today, window: i64, offset: i64) -> usize {
        let bars = self.tape.bars();
        let most = (offset.abs() / self.rules.interval) as usize;
        let (from, to) = if offset < 0 {
            (today.low.saturating_sub(most).max(today.first), today.low)
        } else {
            (today.low, bars.len().min(today.low + most))
        };
        from + bars[from..to].partition_point(|bar| bar.start < window + offset)
    }

    fn momentum(&self, today: &Today, window: i64) -> Option<f64> {
        let from = self.bar_at(today, window, self.rules.momentum.0);
        let to = self.bar_at(today, window, self.rules.momentum.1);
        if to - from < 2 {
            return None;
        }
        let bars = self.tape.bars();
        let (first, last) = (bars[from].close, bars[to - 1].close);
        (first != 0).then(|| last as f64 / first as f64 - 1.0)
    }

    /// Decides how far a cluster goes, writes that into its row, and returns the signal it arms.
    fn examine(&mut self, row: &mut Cluster, judging: Judging, config: &Config) -> Option<Armed> {
        let rules = &self.rules;
        let today = self.today.as_mut()?;
        let overlaps = config.cluster.frame == Frame::Sliding
            && config.cluster.suppress_overlap
            && today
                .last_unsuppressed
                .is_some_and(|last| row.window_start < last + rules.width);
        if overlaps {
            row.reason = "overlap";
            return None;
        }
        today.last_unsuppressed = Some(row.window_start);
        let session = &today.session;
        let Some(hours_end) = session.hours_end(row.decision_time) else {
            row.reason = "hours";
            return None;
        };
        if row.window_start + rules.delay > session.close {
            row.reason = "no_time";
            return None;
        }
        let (Some(modal_price), Some(modal_tied), Some(position)) =
            (row.modal_price, row.modal_tied, row.modal_position)
        else {
            row.reason = "no_profile";
            return None;
        };
        let rank = rank(
            &today.ranked,
            row.decision_time,
            row.volume_ratio,
            rules.rank_span,
        );
        today.ranked.push((row.decision_time, row.volume_ratio));
        let direction = direction(&config.signal, position);
        let strength = direction.map(|direction| {
            strength(
                &config.signal,
                direction,
                position,
                row.volume_ratio,
                row.momentum,
            )
        });
        row.rank = Some(rank);
        row.direction = Some(direction.map_or("none", |direction| direction.word()));
        row.strength = strength;
        if rank > config.rank.top_n {
            row.reason = "rank";
            return None;
        }
        let (Some(direction), Some(strength)) = (direction, strength) else {
            row.reason = "no_direction";
            return None;
        };
        if strength < min_strength(&config.signal, direction) {
            row.reason = "weak";
            return None;
        }
        if config
            .rank
            .max_per_session
            .is_some_and(|most| today.armed >= most)
        {
            row.reason = "max_per_session";
            return None;
        }
        if !cooled_down(judging.last_confirmed, row.decision_time, rules.cooldown) {
            row.reason = "cooldown";
            return None;
        }
        today.armed += 1;
        row.reason = "armed";
        Some(Armed {
            symbol: row.symbol,
            session: today.index,
            decision_time: row.decision_time,
            direction,
            modal_price,
            modal_tied,
            modal_position: position,
            volume_ratio: row.volume_ratio,
            rank,
            momentum: row.momentum,
            strength,
            hours_end: if config.hours.bind_entries {
                hours_end
            } else {
                NEVER
            },
            new_york_hour: session.new_york_hour(row.decision_time),
        })
    }
}

/// Returns the place of a cluster among those it competes with.
fn rank(earlier: &[(i64, f64)], decision_time: i64, volume_ratio: f64, span: i64) -> i64 {
    let better = earlier
        .iter()
        .rev()
        .take_while(|(time, _)| span == 0 || *time >= decision_time - span)
        .filter(|(_, ratio)| *ratio >= volume_ratio)
        .count();
    better as i64 + 1
}

/// Returns whether enough time has passed since the last confirmed signal.
#[must_use]
pub fn cooled_down(last_confirmed: Option<i64>, time: i64, cooldown: i64) -> bool {
    last_confirmed.is_none_or(|last| time - last >= cooldown)
}

fn source_word(mode: BaselineMode, other_contract: bool) -> &'static str {
    match (mode, other_contract) {
        (BaselineMode::PreviousSession, false) => "previous_session",
        (BaselineMode::PreviousSession, true) => "previous_session,other_contract",
        (BaselineMode::Rolling, false) => "rolling",
        (BaselineMode::Rolling, true) => "rolling,other_contract",
        (BaselineMode::SessionToDate, _) => "session_to_date",
        (BaselineMode::TimeOfDay, false) => "time_of_day",
        (BaselineMode::TimeOfDay, true) => "time_of_day,other_contract",
        (BaselineMode::Fixed, _) => "fixed",
    }
}
