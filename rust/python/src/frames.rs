//! Records as columns and as events.

use clustercore_core::instrument::NANOS_PER_POINT;
use clustercore_core::record::{
    Cell, Cluster, Column, ColumnField, ColumnKind, Equity, Event, Frames, Order, Record, Risk,
    Signal, Trade,
};
use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

/// Returns the columns of every frame: name, kind, nullable, unit and sentence.
#[pyfunction]
pub(crate) fn record_fields(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let frames = PyDict::new(py);
    frames.set_item(Cluster::FRAME, describe(py, Cluster::COLUMNS)?)?;
    frames.set_item(Signal::FRAME, describe(py, Signal::COLUMNS)?)?;
    frames.set_item(Order::FRAME, describe(py, Order::COLUMNS)?)?;
    frames.set_item(Trade::FRAME, describe(py, Trade::COLUMNS)?)?;
    frames.set_item(Equity::FRAME, describe(py, Equity::COLUMNS)?)?;
    frames.set_item(Risk::FRAME, describe(py, Risk::COLUMNS)?)?;
    Ok(frames)
}

fn describe<'py>(py: Python<'py>, columns: &[ColumnField]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for column in columns {
        let row = PyDict::new(py);
        row.set_item("name", column.name)?;
        row.set_item("kind", kind_word(column.kind))?;
        row.set_item("nullable", column.nullable)?;
        row.set_item("unit", column.unit)?;
        row.set_item("sentence", column.sentence)?;
        list.append(row)?;
    }
    Ok(list)
}

fn kind_word(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Time => "time",
        ColumnKind::Price => "price",
        ColumnKind::Int => "int",
        ColumnKind::Float => "float",
        ColumnKind::Bool => "bool",
        ColumnKind::Text => "text",
        ColumnKind::Symbol => "symbol",
        ColumnKind::Id => "id",
    }
}

/// Returns the frames as dictionaries of columns.
///
/// A column is `(values, valid)` for times and whole numbers (int64 and a mask or None), values for
/// prices and numbers (float64, NaN for null), `(codes, words)` for words and symbols (uint32,
/// the largest code for null), and a list of texts for identities.
pub(crate) fn to_columns<'py>(
    py: Python<'py>,
    frames: &Frames,
    symbols: &[String],
) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    all.set_item(Cluster::FRAME, columns_of(py, &frames.clusters, symbols)?)?;
    all.set_item(Signal::FRAME, columns_of(py, &frames.signals, symbols)?)?;
    all.set_item(Order::FRAME, columns_of(py, &frames.orders, symbols)?)?;
    all.set_item(Trade::FRAME, columns_of(py, &frames.trades, symbols)?)?;
    all.set_item(Equity::FRAME, columns_of(py, &frames.equity, symbols)?)?;
    all.set_item(Risk::FRAME, columns_of(py, &frames.risk, symbols)?)?;
    Ok(all)
}

fn columns_of<'py, R: Record>(
    py: Python<'py>,
    rows: &[R],
    symbols: &[String],
) -> PyResult<Bound<'py, PyDict>> {
    let columns = PyDict::new(py);
    for (field, column) in R::COLUMNS.iter().zip(R::columns(rows)) {
        columns.set_item(field.name, to_array(py, column, symbols)?)?;
    }
    Ok(columns)
}

fn to_array<'py>(
    py: Python<'py>,
    column: Column,
    symbols: &[String],
) -> PyResult<Bound<'py, PyAny>> {
    let mask = |there: Option<Vec<bool>>| there.map(|there| there.into_pyarray(py));
    Ok(match column {
        Column::Ints(values, there) => (values.into_pyarray(py), mask(there))
            .into_pyobject(py)?
            .into_any(),
        Column::Bools(values, there) => (values.into_pyarray(py), mask(there))
            .into_pyobject(py)?
            .into_any(),
        Column::Floats(values) => values.into_pyarray(py).into_any(),
        Column::Prices(nanos) => {
            let points = nanos
                .into_iter()
                .map(|nanos| nanos.map_or(f64::NAN, points));
            points.collect::<Vec<f64>>().into_pyarray(py).into_any()
        }
        Column::Texts(words) => to_codes(py, &words)?,
        Column::Symbols(codes) => (codes.into_pyarray(py), symbols)
            .into_pyobject(py)?
            .into_any(),
        Column::Ids(ids) => PyList::new(py, ids.iter().map(|id| format!("{id:032x}")))?.into_any(),
    })
}

fn points(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_POINT
}

fn to_codes<'py>(py: Python<'py>, words: &[Option<&'static str>]) -> PyResult<Bound<'py, PyAny>> {
    let mut dictionary: Vec<&'static str> = Vec::new();
    let codes: Vec<u32> = words
        .iter()
        .map(|word| {
            let Some(word) = word else {
                return u32::MAX;
            };
            let known = dictionary.iter().position(|other| other == word);
            known.unwrap_or_else(|| {
                dictionary.push(word);
                dictionary.len() - 1
            }) as u32
        })
        .collect();
    Ok((codes.into_pyarray(py), dictionary)
        .into_pyobject(py)?
        .into_any())
}

/// Returns an event as an instance of its class in `clustercore.events`.
pub(crate) fn to_event<'py>(
    py: Python<'py>,
    event: &Event,
    symbols: &[String],
) -> PyResult<Bound<'py, PyAny>> {
    static CLASSES: [PyOnceLock<Py<PyType>>; 6] = [const { PyOnceLock::new() }; 6];
    match event {
        Event::Cluster(row) => build(py, row, symbols, &CLASSES[0], "Cluster"),
        Event::Armed(row) | Event::Signal(row) => build(py, row, symbols, &CLASSES[1], "Signal"),
        Event::Working(row) | Event::Order(row) => build(py, row, symbols, &CLASSES[2], "Order"),
        Event::Trade(row) => build(py, row, symbols, &CLASSES[3], "Trade"),
        Event::Equity(row) => build(py, row, symbols, &CLASSES[4], "Equity"),
        Event::Risk(row) => build(py, row, symbols, &CLASSES[5], "Risk"),
    }
}

fn build<'py, R: Record>(
    py: Python<'py>,
    row: &R,
    symbols: &[String],
    class: &PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let class = class.import(py, "clustercore.events", name)?;
    let values = (0..R::COLUMNS.len())
        .map(|index| to_python(py, row.cell(index), symbols))
        .collect::<PyResult<Vec<_>>>()?;
    class.call1(PyTuple::new(py, values)?)
}

fn to_python<'py>(py: Python<'py>, cell: Cell, symbols: &[String]) -> PyResult<Bound<'py, PyAny>> {
    Ok(match cell {
        Cell::Time(value) | Cell::Int(value) => value.into_pyobject(py)?.into_any(),
        Cell::Price(nanos) => points(nanos).into_pyobject(py)?.into_any(),
        Cell::Float(value) => value.into_pyobject(py)?.into_any(),
        Cell::Bool(flag) => flag.into_pyobject(py)?.to_owned().into_any(),
        Cell::Text(word) => word.into_pyobject(py)?.into_any(),
        Cell::Symbol(code) => symbols
            .get(code as usize)
            .map_or("", String::as_str)
            .into_pyobject(py)?
            .into_any(),
        Cell::Id(id) => format!("{id:032x}").into_pyobject(py)?.into_any(),
        Cell::Null => py.None().into_bound(py),
    })
}
