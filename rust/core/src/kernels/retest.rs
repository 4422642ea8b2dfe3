//! Which bar first comes back to a level.

use super::{PriceColumns, check_interval, check_length, check_order, error, points, setting};
use crate::bar::{BarInput, PRICE_LIMIT_NANOS};
use crate::config::RetestTest;
use crate::error::Error;
use crate::trader::is_retest;

/// Levels to come back to, all columns of one length, in any order.
#[derive(Clone, Copy, Debug)]
pub struct Levels<'a> {
    /// Prices in 1e-9.
    pub price: &'a [i64],
    /// Times in ns UTC: the first bar to look at starts then or later.
    pub decision_time: &'a [i64],
    /// Times in ns UTC: the last bar to look at ends then or earlier.
    pub deadline: &'a [i64],
}

/// What a retest is.
#[derive(Clone, Copy, Debug)]
pub struct RetestRule {
    /// By the close or by the range.
    pub test: RetestTest,
    /// Distance in 1e-9 that still counts.
    pub tolerance: i64,
    /// Length of a bar in ns.
    pub interval: i64,
}

/// Returns for each level the row of the first bar that retests it, -1 where none does.
///
/// # Errors
/// When columns differ in length, the bars are out of order or not usable, a level's price is out
/// of range, the tolerance is negative or too large, or the interval not positive.
pub fn first_retests(
    start: &[i64],
    bars: PriceColumns<'_>,
    levels: Levels<'_>,
    rule: RetestRule,
) -> Result<Vec<i64>, Error> {
    bars.check_lengths()?;
    check_length("ts_event", start.len(), bars.close.len())?;
    check_length(
        "decision_time",
        levels.decision_time.len(),
        levels.price.len(),
    )?;
    check_length("deadline", levels.deadline.len(), levels.price.len())?;
    check_interval(rule.interval)?;
    check_order(start)?;
    if !(0..PRICE_LIMIT_NANOS).contains(&rule.tolerance) {
        let expected = "0 or more";
        return Err(setting(
            "retest.tolerance",
            "not a distance",
            rule.tolerance,
            expected,
        )
        .into());
    }
    if let Some(row) = (0..bars.close.len()).find(|row| !bars.accepts(*row)) {
        return Err(bars.refuse(row).into());
    }
    let level = |(row, price): (usize, &i64)| {
        if price.saturating_abs() >= PRICE_LIMIT_NANOS {
            let expected = format!("within {} points", points(PRICE_LIMIT_NANOS));
            return Err(error(row, "price", "price too large", points(*price), expected).into());
        }
        let from = start.partition_point(|start| *start < levels.decision_time[row]);
        let last_start = levels.deadline[row].saturating_sub(rule.interval);
        let mut rows = (from..start.len()).take_while(|row| start[*row] <= last_start);
        let found = rows.find(|row| {
            let close = bars.close[*row];
            let bar = BarInput {
                start: start[*row],
                open: close,
                high: bars.high[*row],
                low: bars.low[*row],
                close,
                volume: 0,
            };
            is_retest(rule.test, &bar, *price, rule.tolerance)
        });
        Ok(found.map_or(-1, |row| row as i64))
    };
    levels.price.iter().enumerate().map(level).collect()
}
