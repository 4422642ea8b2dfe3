//! Statistics across the border.

use clustercore_core::beta;
use clustercore_core::bootstrap::Draws;
use clustercore_core::error::Error;
use clustercore_core::statistics::{self, Account, Bars, Trades};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use xxhash_rust::xxh3::Xxh3;

use crate::errors::{exceptions, guarded, raise};

/// The columns of trades, held while they are looked at.
struct TradeColumns<'py> {
    floats: Vec<PyReadonlyArray1<'py, f64>>,
    entry_time: PyReadonlyArray1<'py, i64>,
    exit_time: PyReadonlyArray1<'py, i64>,
    trade_date: PyReadonlyArray1<'py, i32>,
    flags: Vec<PyReadonlyArray1<'py, bool>>,
}

impl<'py> TradeColumns<'py> {
    fn read(columns: &Bound<'py, PyDict>) -> PyResult<Self> {
        let floats = [
            "net",
            "gross",
            "costs",
            "return",
            "risk_usd",
            "stop_points",
            "points",
            "mae",
            "mfe",
        ];
        let flags = ["open", "ambiguous", "modal_tied"];
        Ok(Self {
            floats: floats
                .iter()
                .map(|name| get(columns, name))
                .collect::<PyResult<_>>()?,
            entry_time: get(columns, "entry_time")?,
            exit_time: get(columns, "exit_time")?,
            trade_date: get(columns, "trade_date")?,
            flags: flags
                .iter()
                .map(|name| get(columns, name))
                .collect::<PyResult<_>>()?,
        })
    }

    fn trades(&self) -> PyResult<Trades<'_>> {
        Ok(Trades {
            net: self.floats[0].as_slice()?,
            gross: self.floats[1].as_slice()?,
            costs: self.floats[2].as_slice()?,
            returns: self.floats[3].as_slice()?,
            risk_usd: self.floats[4].as_slice()?,
            stop_points: self.floats[5].as_slice()?,
            points: self.floats[6].as_slice()?,
            mae_points: self.floats[7].as_slice()?,
            mfe_points: self.floats[8].as_slice()?,
            entry_time: self.entry_time.as_slice()?,
            exit_time: self.exit_time.as_slice()?,
            trade_date: self.trade_date.as_slice()?,
            open: self.flags[0].as_slice()?,
            ambiguous: self.flags[1].as_slice()?,
            modal_tied: self.flags[2].as_slice()?,
        })
    }
}

fn get<'py, T>(columns: &Bound<'py, PyDict>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    let column = columns
        .get_item(name)?
        .ok_or_else(|| exceptions::DataError::new_err(format!("column {name} is missing")))?;
    column.extract()
}

/// Returns every statistic (name, value, reason, unit, definition) and the verdict on luck.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn compute_statistics<'py>(
    py: Python<'py>,
    trades: &Bound<'py, PyDict>,
    balance: f64,
    daily_equity: PyReadonlyArray1<'py, f64>,
    mark_time: PyReadonlyArray1<'py, i64>,
    mark_equity: PyReadonlyArray1<'py, f64>,
    bar_start: PyReadonlyArray1<'py, i64>,
    interval_ns: i64,
    seed: u64,
    resamples: usize,
    block_days: u32,
) -> PyResult<(Bound<'py, PyList>, String)> {
    let columns = TradeColumns::read(trades)?;
    let trades = columns.trades()?;
    let account = Account {
        balance,
        daily_equity: daily_equity.as_slice()?,
        mark_time: mark_time.as_slice()?,
        mark_equity: mark_equity.as_slice()?,
    };
    let bars = Bars {
        start: bar_start.as_slice()?,
        interval_ns,
    };
    let draws = Draws {
        seed,
        resamples,
        block_days,
    };
    let computed = py.detach(|| guarded(|| statistics::compute(trades, account, bars, draws)))?;
    let computed = computed.map_err(|error| raise(py, &Error::Config(error)))?;
    let list = PyList::empty(py);
    for statistic in computed.list {
        let row = PyDict::new(py);
        row.set_item("name", statistic.name)?;
        row.set_item("value", statistic.value)?;
        row.set_item("reason", statistic.reason)?;
        row.set_item("unit", statistic.unit)?;
        row.set_item("definition", statistic.definition)?;
        list.append(row)?;
    }
    Ok((list, computed.verdict))
}

/// Returns name, unit and definition of every statistic, in order.
#[pyfunction]
pub(crate) fn statistic_definitions() -> Vec<(&'static str, &'static str, &'static str)> {
    statistics::DEFINITIONS
        .iter()
        .map(|entry| (entry.name, entry.unit, entry.definition))
        .collect()
}

/// Returns closed trades grouped by whole numbers, one dictionary a group, ascending.
#[pyfunction]
pub(crate) fn group_trades<'py>(
    py: Python<'py>,
    trades: &Bound<'py, PyDict>,
    keys: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyList>> {
    let columns = TradeColumns::read(trades)?;
    let (trades, keys) = (columns.trades()?, keys.as_slice()?);
    let groups = py.detach(|| guarded(|| statistics::group(trades, keys)))?;
    let list = PyList::empty(py);
    for group in groups.map_err(|error| raise(py, &Error::Config(error)))? {
        let row = PyDict::new(py);
        row.set_item("key", group.key)?;
        row.set_item("trades", group.trades)?;
        row.set_item("wins", group.wins)?;
        row.set_item("win_rate", group.win_rate)?;
        row.set_item("win_rate_low", group.win_rate_interval.low)?;
        row.set_item("win_rate_high", group.win_rate_interval.high)?;
        row.set_item("net_usd", group.net_usd)?;
        row.set_item("expectancy_usd", group.expectancy_usd)?;
        row.set_item("expectancy_r", group.expectancy_r)?;
        list.append(row)?;
    }
    Ok(list)
}

/// Returns mean, 5 % and 95 % quantile of the posterior win probability.
#[pyfunction]
pub(crate) fn posterior(wins: u64, losses: u64) -> PyResult<(f64, f64, f64)> {
    let posterior = guarded(|| beta::posterior(wins, losses))?;
    Ok((posterior.mean, posterior.low, posterior.high))
}

/// Returns the XXH3 128-bit hash of int64 columns, as hex; columns and their lengths count.
#[pyfunction]
pub(crate) fn hash_columns<'py>(
    py: Python<'py>,
    columns: Vec<PyReadonlyArray1<'py, i64>>,
) -> PyResult<String> {
    let slices: Vec<&[i64]> = columns
        .iter()
        .map(PyReadonlyArray1::as_slice)
        .collect::<Result<_, _>>()?;
    Ok(py.detach(|| {
        let mut hash = Xxh3::new();
        for column in slices {
            hash.update(&column.len().to_le_bytes());
            for block in column.chunks(1024) {
                let mut bytes = [0; 8 * 1024];
                for (place, value) in bytes.chunks_exact_mut(8).zip(block) {
                    place.copy_from_slice(&value.to_le_bytes());
                }
                hash.update(&bytes[..8 * block.len()]);
            }
        }
        format!("{:032x}", hash.digest128())
    }))
}
