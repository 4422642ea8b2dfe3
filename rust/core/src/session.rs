//! The session table. Invariant: sessions are ascending and do not overlap, and nothing in the core
//! knows a calendar or a time zone beyond this table.

use crate::error::DataError;

/// A half-open interval of time in ns UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Start.
    pub start: i64,
    /// End.
    pub end: i64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Days since 1970-01-01 of the trade date.
    pub trade_date: i32,
    /// Open in ns UTC.
    pub open: i64,
    /// Close in ns UTC.
    pub close: i64,
    /// Allowed intervals, none when nothing is allowed; a decision is inside when
    /// `start < decision_time <= end`.
    pub hours: Vec<Interval>,
    /// Scheduled halts.
    pub halts: Vec<Interval>,
    /// New York's offset from UTC in seconds.
    pub new_york_offset_s: i32,
}

impl Session {
    /// Returns the end of the allowed interval that holds a decision.
    #[must_use]
    pub fn hours_end(&self, decision_time: i64) -> Option<i64> {
        self.hours
            .iter()
            .find(|hours| hours.start < decision_time && decision_time <= hours.end)
            .map(|hours| hours.end)
    }

    /// Returns whether the schedule holds the whole interval.
    #[must_use]
    pub fn holds(&self, start: i64, end: i64) -> bool {
        start >= self.open
            && end <= self.close
            && !self
                .halts
                .iter()
                .any(|halt| halt.start < end && start < halt.end)
    }

    /// Returns the hour of New York at a time of this session.
    #[must_use]
    pub fn new_york_hour(&self, time: i64) -> i64 {
        let seconds = time.div_euclid(1_000_000_000) + i64::from(self.new_york_offset_s);
        seconds.rem_euclid(86_400) / 3_600
    }
}

/// Latest time of a session, in ns from 1970 on, and earliest before.
const FURTHEST_NS: u64 = 1 << 62;

/// Longest session.
const LONGEST_NS: i64 = 7 * 86_400 * 1_000_000_000;

/// All sessions the engine knows.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    sessions: Vec<Session>,
}

impl Sessions {
    /// Returns a table.
    ///
    /// # Errors
    /// When a session is out of range, does not end after it opens, or opens before the one before
    /// it has closed.
    pub fn new(sessions: Vec<Session>) -> Result<Self, DataError> {
        let mut table = Self::default();
        table.extend(sessions)?;
        Ok(table)
    }

    /// Adds later sessions; those already known are passed over when they are the same.
    ///
    /// # Errors
    /// When a session is out of range, does not end after it opens, opens before the one before it
    /// has closed, or differs from one already known.
    pub fn extend(&mut self, sessions: Vec<Session>) -> Result<(), DataError> {
        let mut merged = self.sessions.clone();
        for (row, session) in sessions.into_iter().enumerate() {
            if let Some(error) = out_of_range(row, &session) {
                return Err(error);
            }
            if session.close <= session.open {
                return Err(refuse(
                    row,
                    "close",
                    "ends before it opens",
                    session.close,
                    session.open,
                ));
            }
            let Some(last) = merged.last() else {
                merged.push(session);
                continue;
            };
            if session.open >= last.close {
                merged.push(session);
            } else if !merged.contains(&session) {
                return Err(refuse(
                    row,
                    "open",
                    "overlaps or contradicts a known session",
                    session.open,
                    last.close,
                ));
            }
        }
        self.sessions = merged;
        Ok(())
    }

    /// Returns the sessions, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Session] {
        &self.sessions
    }

    /// Returns the index of the session that holds a time.
    #[must_use]
    pub fn holding(&self, time: i64) -> Option<usize> {
        let index = self
            .sessions
            .partition_point(|session| session.close <= time);
        (self.sessions.get(index)?.open <= time).then_some(index)
    }

    /// Returns the index of the session that holds a time, when `hint` is not after it.
    #[must_use]
    pub fn holding_from(&self, hint: usize, time: i64) -> Option<usize> {
        let mut index = hint;
        while index < self.sessions.len() && self.sessions[index].close <= time {
            index += 1;
            if index - hint > 8 {
                return self.holding(time);
            }
        }
        (self.sessions.get(index)?.open <= time).then_some(index)
    }
}

/// Refuses times that leave no room for arithmetic, and sessions that no calendar has.
fn out_of_range(row: usize, session: &Session) -> Option<DataError> {
    let far = |time: i64| time.unsigned_abs() > FURTHEST_NS;
    let (column, found, expected) = if far(session.open) {
        ("open", session.open, "a time between 1824 and 2116")
    } else if far(session.close) {
        ("close", session.close, "a time between 1824 and 2116")
    } else if session.close - session.open > LONGEST_NS {
        ("close", session.close, "at most seven days after the open")
    } else {
        return None;
    };
    Some(DataError {
        row,
        column,
        problem: "the session is out of range".to_owned(),
        found: format!("{found} ns"),
        expected: expected.to_owned(),
    })
}

fn refuse(row: usize, column: &'static str, problem: &str, found: i64, after: i64) -> DataError {
    DataError {
        row,
        column,
        problem: format!("session {problem}"),
        found: format!("{found} ns"),
        expected: format!("at or after {after} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(open: i64, close: i64) -> Session {
        Session {
            trade_date: 0,
            open,
            close,
            hours: vec![],
            halts: vec![],
            new_york_offset_s: 0,
        }
    }

    #[test]
    fn holding_finds_the_session_of_a_time() {
        let table = Sessions::new(vec![session(10, 20), session(25, 30)]).expect("ascending");
        assert_eq!(table.holding(9), None);
        assert_eq!(table.holding(10), Some(0));
        assert_eq!(table.holding(20), None);
        assert_eq!(table.holding_from(0, 29), Some(1));
    }

    #[test]
    fn overlapping_sessions_are_refused_and_known_ones_passed_over() {
        let mut table = Sessions::new(vec![session(10, 20)]).expect("one");
        assert!(table.extend(vec![session(15, 25)]).is_err());
        assert!(table.extend(vec![session(10, 20), session(20, 25)]).is_ok());
        assert_eq!(table.all().len(), 2);
    }
}
