//! The usual volume of a minute, known at the start of every bar: the value of a row rests on the
//! rows before it alone.

use super::{check_close, check_interval, check_length, check_order, check_volumes, setting};
use crate::bar::{BarInput, MINUTE_NS, Tape};
use crate::baseline::{DayCount, Days, TimeOfDay, per_minute};
use crate::error::Error;
use crate::session::{Session, Sessions};

/// Writes the mean volume of a minute over the `bars` bars before each row, NaN until they exist.
///
/// # Errors
/// When the lengths differ, `bars` is 0, the interval is not positive or a volume not allowed.
pub fn rolling(volume: &[i64], bars: usize, interval: i64, out: &mut [f64]) -> Result<(), Error> {
    check_length("out", out.len(), volume.len())?;
    check_interval(interval)?;
    check_volumes(volume)?;
    if bars == 0 {
        return Err(setting("baseline.bars", "too few", bars, "at least 1 bar").into());
    }
    let bar_minutes = minutes(interval);
    let beginning = bars.min(out.len());
    out[..beginning].fill(f64::NAN);
    let mut sum: i64 = volume[..beginning].iter().sum();
    let moving = volume.iter().zip(&volume[beginning..]);
    for (value, (leaves, enters)) in out[beginning..].iter_mut().zip(moving) {
        *value = per_minute(sum, bars as i64, bar_minutes);
        sum += enters - leaves;
    }
    Ok(())
}

/// Writes the mean volume of a minute over the bars of the same session before each row, NaN until
/// there are `min_bars`.
///
/// A session is a stretch of rows with one number; a negative one stands for no session.
///
/// # Errors
/// As [`rolling`].
pub fn session_to_date(
    volume: &[i64],
    session: &[i64],
    min_bars: usize,
    interval: i64,
    out: &mut [f64],
) -> Result<(), Error> {
    check_length("out", out.len(), volume.len())?;
    check_length("session", session.len(), volume.len())?;
    check_interval(interval)?;
    check_volumes(volume)?;
    let bar_minutes = minutes(interval);
    let (mut current, mut bars, mut sum) = (-1, 0, 0);
    for ((value, volume), session) in out.iter_mut().zip(volume).zip(session) {
        if *session != current {
            (current, bars, sum) = (*session, 0, 0);
        }
        let enough = (current >= 0) & (bars >= min_bars.max(1) as i64);
        *value = if enough {
            per_minute(sum, bars, bar_minutes)
        } else {
            f64::NAN
        };
        bars += 1;
        sum += volume;
    }
    Ok(())
}

/// Writes for each row the mean volume of a minute in the last good session before its own, NaN
/// outside sessions and where there is none. What is good is the engine's rule.
///
/// # Errors
/// As [`rolling`], and when the bars are out of order or a session that holds some does not close
/// on the grid of the interval.
pub fn previous_session(
    start: &[i64],
    volume: &[i64],
    sessions: &Sessions,
    interval: i64,
    out: &mut [f64],
) -> Result<(), Error> {
    let bar_minutes = minutes(interval);
    let mut days = Days::default();
    by_session(
        start,
        volume,
        sessions,
        interval,
        out,
        |index, session, rows, volume, out| {
            let usual = days.last_good(bar_minutes);
            out.fill(usual.map_or(f64::NAN, |usual| usual.per_minute));
            days.push(DayCount {
                session: index,
                symbol: 0,
                volume: volume.iter().sum(),
                bars: rows.len() as i64,
                scheduled_bars: (session.close - session.open + interval - 1).div_euclid(interval),
            });
        },
    )
}

/// Which earlier slots make the usual volume of a slot.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Length of a slot in ns, whole bars.
    pub width: i64,
    /// Sessions that count.
    pub sessions: usize,
    /// Fewest sessions.
    pub min_sessions: usize,
}

/// Writes for each row the mean volume of a minute in the slot `[start, start + width)` of the last
/// sessions, NaN outside sessions and where there are too few.
///
/// # Errors
/// As [`previous_session`], and when the width is not a whole number of bars or no session counts.
pub fn time_of_day(
    start: &[i64],
    volume: &[i64],
    sessions: &Sessions,
    interval: i64,
    slots: Slots,
    out: &mut [f64],
) -> Result<(), Error> {
    check_interval(interval)?;
    if slots.width <= 0 || slots.width % interval != 0 {
        let problem = "not a whole number of bars";
        return Err(setting(
            "cluster.minutes",
            problem,
            slots.width,
            "a multiple of the bar",
        )
        .into());
    }
    if slots.min_sessions == 0 || slots.min_sessions > slots.sessions {
        let expected = "1 to baseline.sessions";
        let found = slots.min_sessions;
        return Err(setting("baseline.min_sessions", "out of range", found, expected).into());
    }
    let bar_minutes = minutes(interval);
    let mut earlier = TimeOfDay::new(slots.sessions, slots.min_sessions, interval, slots.width);
    by_session(
        start,
        volume,
        sessions,
        interval,
        out,
        |index, session, start, volume, out| {
            let mut tape = Tape::default();
            for ((value, start), volume) in out.iter_mut().zip(start).zip(volume) {
                let usual = earlier.usual(start - session.open, bar_minutes);
                *value = usual.map_or(f64::NAN, |usual| usual.per_minute);
                let bar = BarInput {
                    start: *start,
                    open: 0,
                    high: 0,
                    low: 0,
                    close: 0,
                    volume: *volume,
                };
                tape.push(&bar, false);
            }
            earlier.push(index, session, 0, &tape, 0);
        },
    )
}

/// Calls `work` for the rows of each session that has some, oldest first; the rows of no session
/// get NaN.
fn by_session(
    start: &[i64],
    volume: &[i64],
    sessions: &Sessions,
    interval: i64,
    out: &mut [f64],
    mut work: impl FnMut(usize, &Session, &[i64], &[i64], &mut [f64]),
) -> Result<(), Error> {
    check_length("volume", volume.len(), start.len())?;
    check_length("out", out.len(), start.len())?;
    check_interval(interval)?;
    check_volumes(volume)?;
    check_order(start)?;
    let mut from = 0;
    while from < start.len() {
        let Some(index) = sessions.holding(start[from]) else {
            out[from] = f64::NAN;
            from += 1;
            continue;
        };
        let session = &sessions.all()[index];
        check_close(session, interval)?;
        let to = from + start[from..].partition_point(|start| *start < session.close);
        work(
            index,
            session,
            &start[from..to],
            &volume[from..to],
            &mut out[from..to],
        );
        from = to;
    }
    Ok(())
}

fn minutes(interval: i64) -> f64 {
    interval as f64 / MINUTE_NS as f64
}
