//! Session tables across the border.

use clustercore_core::session::{Interval, Session, Sessions};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{data_error, exceptions};

/// Reads a session table from its flat columns.
pub(crate) fn read_table(columns: &Bound<'_, PyDict>) -> PyResult<Sessions> {
    Sessions::new(read_sessions(columns)?).map_err(|error| data_error(columns.py(), &error))
}

/// Reads sessions from their flat columns, as `Sessions.columns()` gives them.
pub(crate) fn read_sessions(columns: &Bound<'_, PyDict>) -> PyResult<Vec<Session>> {
    let open: Vec<i64> = column(columns, "open_ns")?;
    let close: Vec<i64> = column(columns, "close_ns")?;
    let trade_date: Vec<i32> = column(columns, "trade_date")?;
    let offset: Vec<i32> = column(columns, "new_york_offset_s")?;
    let lengths = [close.len(), trade_date.len(), offset.len()];
    if lengths.iter().any(|length| *length != open.len()) {
        return Err(exceptions::DataError::new_err(
            "sessions: columns differ in length",
        ));
    }
    let mut sessions: Vec<Session> = open
        .iter()
        .zip(&close)
        .zip(trade_date.iter().zip(&offset))
        .map(
            |((&open, &close), (&trade_date, &new_york_offset_s))| Session {
                trade_date,
                open,
                close,
                hours: Vec::new(),
                halts: Vec::new(),
                new_york_offset_s,
            },
        )
        .collect();
    for (row, interval) in intervals(columns, "hours")? {
        known(&mut sessions, row)?.hours.push(interval);
    }
    for (row, interval) in intervals(columns, "halts")? {
        known(&mut sessions, row)?.halts.push(interval);
    }
    Ok(sessions)
}

fn known(sessions: &mut [Session], row: usize) -> PyResult<&mut Session> {
    sessions.get_mut(row).ok_or_else(|| {
        exceptions::DataError::new_err("sessions: an interval of an unknown session")
    })
}

fn column<T: numpy::Element + Clone>(columns: &Bound<'_, PyDict>, name: &str) -> PyResult<Vec<T>> {
    let array = columns.get_item(name)?.ok_or_else(|| {
        exceptions::DataError::new_err(format!("sessions: column {name} is missing"))
    })?;
    let array: PyReadonlyArray1<'_, T> = array.extract()?;
    Ok(array.as_slice()?.to_vec())
}

fn intervals(columns: &Bound<'_, PyDict>, name: &str) -> PyResult<Vec<(usize, Interval)>> {
    let session: Vec<i64> = column(columns, &format!("{name}_session"))?;
    let start: Vec<i64> = column(columns, &format!("{name}_start_ns"))?;
    let end: Vec<i64> = column(columns, &format!("{name}_end_ns"))?;
    if session.len() != start.len() || session.len() != end.len() {
        return Err(exceptions::DataError::new_err(format!(
            "sessions: {name} differ in length"
        )));
    }
    Ok(session
        .iter()
        .zip(start.iter().zip(&end))
        .map(|(&row, (&start, &end))| {
            (
                usize::try_from(row).unwrap_or(usize::MAX),
                Interval { start, end },
            )
        })
        .collect())
}
