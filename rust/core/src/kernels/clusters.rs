//! Clusters from a baseline of the caller's own, found by the engine's detector.

use std::collections::VecDeque;

use super::{check_close, check_interval, check_length};
use crate::bar::BarInput;
use crate::check::{Checker, Limits, Place};
use crate::config::{BaselineMode, Config, Frame};
use crate::detector::{Detector, Judging, NEVER, ceil_to_bars};
use crate::error::{DataError, Error};
use crate::record::{Cluster, Event};
use crate::session::{Session, Sessions};

/// Columns of bars of one contract, oldest first, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct BarColumns<'a> {
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
}

impl BarColumns<'_> {
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

    fn check_lengths(&self) -> Result<(), DataError> {
        let rows = self.start.len();
        check_length("open", self.open.len(), rows)?;
        check_length("high", self.high.len(), rows)?;
        check_length("low", self.low.len(), rows)?;
        check_length("close", self.close.len(), rows)?;
        check_length("volume", self.volume.len(), rows)
    }
}

/// Returns the clusters of some bars. `baseline` is the usual volume of a minute at each row; a
/// window is measured by that of its first bar, and one without (NaN) makes no cluster.
///
/// Everything else is the configuration's, as in [`crate::engine::Engine::run`]; no signal is
/// confirmed, so no cooldown runs.
///
/// # Errors
/// When a bar is refused, a baseline is negative or zero, or a session that holds bars does not
/// close on the grid of the interval.
pub fn clusters(
    columns: BarColumns<'_>,
    baseline: &[f64],
    config: &Config,
    tick: i64,
    sessions: &Sessions,
    interval: i64,
) -> Result<Vec<Cluster>, Error> {
    columns.check_lengths()?;
    check_length("baseline", baseline.len(), columns.start.len())?;
    check_interval(interval)?;
    if let Some(row) = baseline.iter().position(|value| *value <= 0.0) {
        return Err(Error::Data(DataError {
            row,
            column: "baseline",
            problem: "not a usual volume".to_owned(),
            found: baseline[row].to_string(),
            expected: "above 0, or NaN where there is none".to_owned(),
        }));
    }
    let settings = &config.instrument;
    let limits = Limits::new(interval, tick, settings.check_tick, settings.allow_negative);
    let mut checker = Checker::default();
    let mut search = Search::new(config, tick, interval);
    for (row, usual) in baseline.iter().enumerate() {
        let bar = columns.bar(row);
        let Place::Session(index) = checker.check(row, &bar, 0, &limits, sessions)? else {
            continue;
        };
        search.fall_due(bar.start);
        if search.close == NEVER {
            let session = &sessions.all()[index];
            check_close(session, interval)?;
            search.open_session(index, session);
            search.fall_due(bar.start);
        }
        search.fall_due(bar.start + interval - 1);
        search.push(&bar, *usual);
        search.fall_due(bar.start + interval);
    }
    Ok(search.into_clusters())
}

struct Search {
    detector: Detector,
    config: Config,
    width: i64,
    interval: i64,
    open: i64,
    /// Close of the session under way.
    close: i64,
    /// Starts of the windows that the detector will judge next.
    windows: VecDeque<i64>,
    /// Starts of this session's bars, and the usual volume at each.
    usual: Vec<(i64, f64)>,
    events: Vec<Event>,
}

impl Search {
    fn new(config: &Config, tick: i64, interval: i64) -> Self {
        let mut config = config.clone();
        config.baseline.mode = BaselineMode::Fixed;
        Self {
            detector: Detector::new(&config, interval, tick, 0),
            width: ceil_to_bars(config.cluster.minutes, interval),
            config,
            interval,
            open: 0,
            close: NEVER,
            windows: VecDeque::new(),
            usual: Vec::new(),
            events: Vec::new(),
        }
    }

    fn open_session(&mut self, index: usize, session: &Session) {
        self.detector.open_session(index, session, &self.config);
        self.open = session.open;
        self.close = session.close;
        self.usual.clear();
        self.windows.clear();
        if self.config.cluster.frame == Frame::Aligned {
            self.windows.push_back(session.open);
        }
    }

    fn push(&mut self, bar: &BarInput, usual: f64) {
        self.detector.push(bar, &self.config);
        self.usual.push((bar.start, usual));
        let start = bar.start + self.interval - self.width;
        if self.config.cluster.frame == Frame::Sliding && start >= self.open {
            self.windows.push_back(start);
        }
    }

    /// Judges what falls due until a time, and ends the session when it is over.
    fn fall_due(&mut self, until: i64) {
        loop {
            let instant = self.detector.due(&self.config).min(self.close);
            if instant > until || instant == NEVER {
                return;
            }
            while self.detector.due(&self.config) <= instant {
                self.judge(instant);
            }
            if self.close <= instant {
                self.detector.close_session(&self.config);
                self.close = NEVER;
            }
        }
    }

    fn judge(&mut self, instant: i64) {
        let window = self.windows.pop_front().unwrap_or(self.close);
        if self.config.cluster.frame == Frame::Aligned {
            self.windows.push_back(window + self.width);
        }
        let place = self.usual.partition_point(|(start, _)| *start < window);
        let usual = self.usual.get(place).map_or(f64::NAN, |(_, usual)| *usual);
        // Nothing is many times an infinite volume: a window without a baseline is quiet.
        self.config.baseline.value = if usual.is_nan() { f64::INFINITY } else { usual };
        let judging = Judging {
            instant,
            last_confirmed: None,
        };
        self.detector.judge(judging, &self.config, &mut self.events);
    }

    fn into_clusters(self) -> Vec<Cluster> {
        let cluster = |event| match event {
            Event::Cluster(row) => Some(Cluster {
                baseline_source: "given",
                ..row
            }),
            _ => None,
        };
        self.events.into_iter().filter_map(cluster).collect()
    }
}
