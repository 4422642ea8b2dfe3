//! The kernels over NumPy columns.

use clustercore_core::config::Config;
use clustercore_core::error::Error;
use clustercore_core::instrument::NANOS_PER_POINT;
use clustercore_core::kernels::clusters::{BarColumns, clusters};
use clustercore_core::kernels::modal::rolling_modal_price as modal_prices;
use clustercore_core::kernels::retest::{Levels, RetestRule, first_retests};
use clustercore_core::kernels::{PriceColumns, ProfileColumns, baseline};
use clustercore_core::profile::ProfileRule;
use clustercore_core::record::{Cluster, Frames, Record};
use clustercore_core::volatility::rolling::{self, Output, Prices, Rule};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::config::read_config;
use crate::errors::{guarded, raise};
use crate::frames::to_columns;
use crate::sessions::read_table;

type Int64s<'py> = PyReadonlyArray1<'py, i64>;
type Float64s<'py> = PyReadonlyArray1<'py, f64>;
type FloatArray<'py> = Bound<'py, PyArray1<f64>>;

/// Works without the interpreter; a panic becomes `InternalError`.
fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    py.detach(|| guarded(work))?
        .map_err(|error| raise(py, &error))
}

fn profile_rule(config: &Bound<'_, PyDict>, tick: i64) -> PyResult<ProfileRule> {
    let profile = read_config(config)?.profile;
    Ok(ProfileRule {
        source: profile.source,
        tie: profile.tie,
        tick,
    })
}

/// Returns for every row the mean volume of a minute over the `bars` bars before it.
#[pyfunction]
pub(crate) fn rolling_baseline<'py>(
    py: Python<'py>,
    volume: Int64s<'py>,
    bars: usize,
    interval_ns: i64,
) -> PyResult<FloatArray<'py>> {
    let volume = volume.as_slice()?;
    let mut out = vec![0.0; volume.len()];
    detached(py, || {
        baseline::rolling(volume, bars, interval_ns, &mut out)
    })?;
    Ok(out.into_pyarray(py))
}

/// Returns for every row the mean volume of a minute over the bars of its session before it.
#[pyfunction]
pub(crate) fn session_to_date_baseline<'py>(
    py: Python<'py>,
    volume: Int64s<'py>,
    session: Int64s<'py>,
    min_bars: usize,
    interval_ns: i64,
) -> PyResult<FloatArray<'py>> {
    let (volume, session) = (volume.as_slice()?, session.as_slice()?);
    let mut out = vec![0.0; volume.len()];
    detached(py, || {
        baseline::session_to_date(volume, session, min_bars, interval_ns, &mut out)
    })?;
    Ok(out.into_pyarray(py))
}

/// Returns for every row the mean volume of a minute in the last good session before its own.
#[pyfunction]
pub(crate) fn previous_session_baseline<'py>(
    py: Python<'py>,
    ts_event: Int64s<'py>,
    volume: Int64s<'py>,
    sessions: &Bound<'py, PyDict>,
    interval_ns: i64,
) -> PyResult<FloatArray<'py>> {
    let (start, volume) = (ts_event.as_slice()?, volume.as_slice()?);
    let sessions = read_table(sessions)?;
    let mut out = vec![0.0; start.len()];
    detached(py, || {
        baseline::previous_session(start, volume, &sessions, interval_ns, &mut out)
    })?;
    Ok(out.into_pyarray(py))
}

/// Returns for every row the mean volume of a minute in the same slot of the last sessions.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn time_of_day_baseline<'py>(
    py: Python<'py>,
    ts_event: Int64s<'py>,
    volume: Int64s<'py>,
    sessions: &Bound<'py, PyDict>,
    interval_ns: i64,
    width_ns: i64,
    counted: usize,
    fewest: usize,
) -> PyResult<FloatArray<'py>> {
    let (start, volume) = (ts_event.as_slice()?, volume.as_slice()?);
    let table = read_table(sessions)?;
    let slots = baseline::Slots {
        width: width_ns,
        sessions: counted,
        min_sessions: fewest,
    };
    let mut out = vec![0.0; start.len()];
    detached(py, || {
        baseline::time_of_day(start, volume, &table, interval_ns, slots, &mut out)
    })?;
    Ok(out.into_pyarray(py))
}

/// Modal prices in points, whether they are tied, and where they lie between low and high.
type ModalArrays<'py> = (FloatArray<'py>, Bound<'py, PyArray1<bool>>, FloatArray<'py>);

/// Returns the modal price in points, whether it is tied and its position for every window.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn rolling_modal_price<'py>(
    py: Python<'py>,
    high: Int64s<'py>,
    low: Int64s<'py>,
    close: Int64s<'py>,
    volume: Int64s<'py>,
    window: usize,
    tick_nanos: i64,
    config: &Bound<'py, PyDict>,
) -> PyResult<ModalArrays<'py>> {
    let rule = profile_rule(config, tick_nanos)?;
    let columns = ProfileColumns {
        high: high.as_slice()?,
        low: low.as_slice()?,
        close: close.as_slice()?,
        volume: volume.as_slice()?,
    };
    let found = detached(py, || modal_prices(columns, window, rule))?;
    Ok((
        found.price.into_pyarray(py),
        found.tied.into_pyarray(py),
        found.position.into_pyarray(py),
    ))
}

/// Returns the histogram of some bars and what it says.
///
/// The dictionary holds `price` (points, from the lowest tick up) and `volume`, and where there is
/// a profile `modal_price`, `modal_tied`, `value_area_low`, `value_area_high`, `modal_position`.
#[pyfunction]
pub(crate) fn volume_profile<'py>(
    py: Python<'py>,
    high: Int64s<'py>,
    low: Int64s<'py>,
    close: Int64s<'py>,
    volume: Int64s<'py>,
    tick_nanos: i64,
    config: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let rule = profile_rule(config, tick_nanos)?;
    let columns = ProfileColumns {
        high: high.as_slice()?,
        low: low.as_slice()?,
        close: close.as_slice()?,
        volume: volume.as_slice()?,
    };
    let (histogram, profile) = detached(py, || {
        Ok(clustercore_core::kernels::volume_profile(columns, rule)?)
    })?;
    let points = |nanos: i64| nanos as f64 / NANOS_PER_POINT;
    let weights = histogram.weights().to_vec();
    let ticks = histogram.low_tick()..histogram.low_tick() + weights.len() as i64;
    let prices: Vec<f64> = ticks.map(|tick| points(tick * tick_nanos)).collect();
    let found = PyDict::new(py);
    found.set_item("price", prices.into_pyarray(py))?;
    found.set_item("volume", weights.into_pyarray(py))?;
    if let Some(profile) = profile {
        found.set_item("modal_price", points(profile.modal_price))?;
        found.set_item("modal_tied", profile.modal_tied)?;
        found.set_item("value_area_low", points(profile.value_area_low))?;
        found.set_item("value_area_high", points(profile.value_area_high))?;
        found.set_item("modal_position", profile.modal_position)?;
    }
    Ok(found)
}

/// Returns for each level the row of the first bar that retests it, -1 where none does.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn match_retests<'py>(
    py: Python<'py>,
    ts_event: Int64s<'py>,
    high: Int64s<'py>,
    low: Int64s<'py>,
    close: Int64s<'py>,
    price: Int64s<'py>,
    decision_time: Int64s<'py>,
    deadline: Int64s<'py>,
    tolerance_nanos: i64,
    interval_ns: i64,
    config: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let test = read_config(config)?.retest.test;
    let rule = RetestRule {
        test,
        tolerance: tolerance_nanos,
        interval: interval_ns,
    };
    let start = ts_event.as_slice()?;
    let bars = PriceColumns {
        high: high.as_slice()?,
        low: low.as_slice()?,
        close: close.as_slice()?,
    };
    let levels = Levels {
        price: price.as_slice()?,
        decision_time: decision_time.as_slice()?,
        deadline: deadline.as_slice()?,
    };
    let rows = detached(py, || first_retests(start, bars, levels, rule))?;
    Ok(rows.into_pyarray(py))
}

/// Returns the columns of the clusters that a baseline of the caller's own gives.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn detect_clusters<'py>(
    py: Python<'py>,
    ts_event: Int64s<'py>,
    open: Int64s<'py>,
    high: Int64s<'py>,
    low: Int64s<'py>,
    close: Int64s<'py>,
    volume: Int64s<'py>,
    baseline: Float64s<'py>,
    symbol: String,
    sessions: &Bound<'py, PyDict>,
    interval_ns: i64,
    tick_nanos: i64,
    config: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let columns = BarColumns {
        start: ts_event.as_slice()?,
        open: open.as_slice()?,
        high: high.as_slice()?,
        low: low.as_slice()?,
        close: close.as_slice()?,
        volume: volume.as_slice()?,
    };
    let usual = baseline.as_slice()?;
    let config: Config = read_config(config)?;
    let sessions = read_table(sessions)?;
    let rows = detached(py, || {
        clusters(columns, usual, &config, tick_nanos, &sessions, interval_ns)
    })?;
    let frames = Frames {
        clusters: rows,
        ..Frames::default()
    };
    to_columns(py, &frames, &[symbol])?
        .as_any()
        .get_item(Cluster::FRAME)
}

/// What a rolling volatility function is asked for.
fn rolling_rule(
    window: usize,
    min_periods: usize,
    annualisation: Option<f64>,
    output: &str,
) -> PyResult<Rule> {
    let output = match output {
        "variance" => Output::Variance,
        "sigma" => Output::Sigma,
        other => {
            let error = clustercore_core::error::ConfigError {
                field: "output".to_owned(),
                problem: "not an allowed value".to_owned(),
                found: other.to_owned(),
                expected: "one of sigma, variance".to_owned(),
            };
            return Err(Python::attach(|py| crate::errors::config_error(py, &error)));
        }
    };
    Ok(Rule {
        window,
        min_periods,
        annualisation,
        output,
    })
}

/// Returns the rolling volatility of an estimator; NaN where there is no value.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn rolling_volatility<'py>(
    py: Python<'py>,
    open: Float64s<'py>,
    high: Float64s<'py>,
    low: Float64s<'py>,
    close: Float64s<'py>,
    follows: Option<PyReadonlyArray1<'py, bool>>,
    window: usize,
    min_periods: usize,
    annualisation: Option<f64>,
    output: &str,
    config: &Bound<'py, PyDict>,
) -> PyResult<FloatArray<'py>> {
    let estimator = read_config(config)?.volatility.estimator;
    let rule = rolling_rule(window, min_periods, annualisation, output)?;
    let prices = Prices {
        open: open.as_slice()?,
        high: high.as_slice()?,
        low: low.as_slice()?,
        close: close.as_slice()?,
        follows: follows
            .as_ref()
            .map(PyReadonlyArray1::as_slice)
            .transpose()?,
    };
    let mut out = vec![0.0; prices.close.len()];
    detached(py, || {
        Ok(rolling::volatility(estimator, prices, rule, &mut out)?)
    })?;
    Ok(out.into_pyarray(py))
}

/// Returns the rolling volatility that the mean true range stands for.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn rolling_atr_sigma<'py>(
    py: Python<'py>,
    high: Float64s<'py>,
    low: Float64s<'py>,
    close: Float64s<'py>,
    follows: Option<PyReadonlyArray1<'py, bool>>,
    window: usize,
    min_periods: usize,
    annualisation: Option<f64>,
    output: &str,
) -> PyResult<FloatArray<'py>> {
    let rule = rolling_rule(window, min_periods, annualisation, output)?;
    ranges(py, &high, &low, &close, follows.as_ref(), |prices, out| {
        rolling::atr_sigma(prices, rule, out)
    })
}

/// Returns the rolling mean of the true range, in the unit of the prices.
#[pyfunction]
pub(crate) fn rolling_true_range<'py>(
    py: Python<'py>,
    high: Float64s<'py>,
    low: Float64s<'py>,
    close: Float64s<'py>,
    follows: Option<PyReadonlyArray1<'py, bool>>,
    window: usize,
    min_periods: usize,
) -> PyResult<FloatArray<'py>> {
    let rule = Rule {
        window,
        min_periods,
        annualisation: None,
        output: Output::Sigma,
    };
    ranges(py, &high, &low, &close, follows.as_ref(), |prices, out| {
        rolling::mean_true_range(prices, rule, out)
    })
}

/// Returns the true range of every bar, in the unit of the prices.
#[pyfunction]
pub(crate) fn true_range<'py>(
    py: Python<'py>,
    high: Float64s<'py>,
    low: Float64s<'py>,
    close: Float64s<'py>,
    follows: Option<PyReadonlyArray1<'py, bool>>,
) -> PyResult<FloatArray<'py>> {
    ranges(
        py,
        &high,
        &low,
        &close,
        follows.as_ref(),
        rolling::true_range,
    )
}

fn ranges<'py>(
    py: Python<'py>,
    high: &Float64s<'py>,
    low: &Float64s<'py>,
    close: &Float64s<'py>,
    follows: Option<&PyReadonlyArray1<'py, bool>>,
    work: impl FnOnce(Prices<'_>, &mut [f64]) -> Result<(), clustercore_core::error::ConfigError> + Send,
) -> PyResult<FloatArray<'py>> {
    let close = close.as_slice()?;
    // No range looks at an open.
    let prices = Prices {
        open: close,
        high: high.as_slice()?,
        low: low.as_slice()?,
        close,
        follows: follows.map(PyReadonlyArray1::as_slice).transpose()?,
    };
    let mut out = vec![0.0; close.len()];
    detached(py, || Ok(work(prices, &mut out)?))?;
    Ok(out.into_pyarray(py))
}
