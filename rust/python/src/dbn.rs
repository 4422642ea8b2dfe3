//! DBN files as NumPy columns in a dictionary.

use std::path::{Path, PathBuf};

use clustercore_dbn::{
    BarColumns, Decoded, DefinitionColumns, Error, MappingColumns, Metadata, TradeColumns,
    decode_file,
};
use numpy::IntoPyArray;
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use crate::errors::{exceptions, guarded};

/// Decodes a `.dbn` or `.dbn.zst` file (versions 1 to 3) into columns.
///
/// The dictionary holds `metadata`, `records`, `counts` (records by type), `bars` (by schema such as
/// `ohlcv-1m`, each with `interval_ns`), `trades` (by the type of record that told them),
/// `definitions` and `mappings`. Prices are int64 in 1e-9, times int64 nanoseconds since 1970.
/// The interpreter is free for other threads while the file is decoded.
///
/// Raises `DataError` with file, row (index of the record), column, found and expected.
#[pyfunction]
pub(crate) fn decode_dbn<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyDict>> {
    // The reader refuses every input it cannot read; the guard is the last net below it.
    match py.detach(|| guarded(|| decode_file(&path)))? {
        Ok(decoded) => columns(py, decoded),
        Err(error) => Err(data_error(py, &error, &path)),
    }
}

fn data_error(py: Python<'_>, error: &Error, path: &Path) -> PyErr {
    let raise = || -> PyResult<PyErr> {
        let place = PyDict::new(py);
        place.set_item("file", path.display().to_string())?;
        place.set_item("row", error.record())?;
        place.set_item("column", error.column())?;
        place.set_item("found", error.found())?;
        place.set_item("expected", error.expected())?;
        let exception = py
            .get_type::<exceptions::DataError>()
            .call((error.to_string(),), Some(&place))?;
        Ok(PyErr::from_value(exception))
    };
    raise().unwrap_or_else(|failure| failure)
}

fn columns(py: Python<'_>, decoded: Decoded) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("metadata", metadata(py, &decoded.metadata)?)?;
    result.set_item("records", decoded.records)?;
    result.set_item("counts", decoded.counts)?;
    let bars = PyDict::new(py);
    for (schema, interval_ns, columns) in decoded.bars {
        bars.set_item(schema, bar_columns(py, interval_ns, columns)?)?;
    }
    result.set_item("bars", bars)?;
    let trades = PyDict::new(py);
    for (schema, columns) in decoded.trades {
        trades.set_item(schema, trade_columns(py, columns)?)?;
    }
    result.set_item("trades", trades)?;
    result.set_item("definitions", definition_columns(py, decoded.definitions)?)?;
    result.set_item("mappings", mapping_columns(py, decoded.mappings)?)?;
    Ok(result)
}

fn metadata<'py>(py: Python<'py>, metadata: &Metadata) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("version", metadata.version)?;
    result.set_item("dataset", &metadata.dataset)?;
    result.set_item("schema", metadata.schema.map(|schema| schema.as_str()))?;
    result.set_item("stype_in", metadata.stype_in.map(|stype| stype.as_str()))?;
    result.set_item("stype_out", metadata.stype_out.as_str())?;
    result.set_item("start", metadata.start)?;
    result.set_item("end", metadata.end.map(std::num::NonZero::get))?;
    result.set_item("limit", metadata.limit.map(std::num::NonZero::get))?;
    result.set_item("ts_out", metadata.ts_out)?;
    result.set_item("symbols", &metadata.symbols)?;
    result.set_item("partial", &metadata.partial)?;
    result.set_item("not_found", &metadata.not_found)?;
    let mappings = PyList::empty(py);
    for mapping in &metadata.mappings {
        for interval in &mapping.intervals {
            mappings.append((
                &mapping.raw_symbol,
                interval.start_date.to_string(),
                interval.end_date.to_string(),
                &interval.symbol,
            ))?;
        }
    }
    result.set_item("mappings", mappings)?;
    Ok(result)
}

fn bar_columns(
    py: Python<'_>,
    interval_ns: i64,
    columns: BarColumns,
) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("interval_ns", interval_ns)?;
    result.set_item("ts_event", columns.ts_event.into_pyarray(py))?;
    result.set_item("instrument_id", columns.instrument_id.into_pyarray(py))?;
    result.set_item("open", columns.open.into_pyarray(py))?;
    result.set_item("high", columns.high.into_pyarray(py))?;
    result.set_item("low", columns.low.into_pyarray(py))?;
    result.set_item("close", columns.close.into_pyarray(py))?;
    result.set_item("volume", columns.volume.into_pyarray(py))?;
    Ok(result)
}

fn trade_columns(py: Python<'_>, columns: TradeColumns) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("ts_recv", columns.ts_recv.into_pyarray(py))?;
    result.set_item("ts_event", columns.ts_event.into_pyarray(py))?;
    result.set_item("instrument_id", columns.instrument_id.into_pyarray(py))?;
    result.set_item("price", columns.price.into_pyarray(py))?;
    result.set_item("size", columns.size.into_pyarray(py))?;
    result.set_item("side", columns.side.into_pyarray(py))?;
    result.set_item("flags", columns.flags.into_pyarray(py))?;
    Ok(result)
}

fn definition_columns(py: Python<'_>, columns: DefinitionColumns) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("ts_event", columns.ts_event.into_pyarray(py))?;
    result.set_item("instrument_id", columns.instrument_id.into_pyarray(py))?;
    result.set_item("raw_symbol", columns.raw_symbol)?;
    result.set_item("asset", columns.asset)?;
    result.set_item("currency", columns.currency)?;
    result.set_item("instrument_class", columns.instrument_class)?;
    result.set_item(
        "min_price_increment",
        columns.min_price_increment.into_pyarray(py),
    )?;
    result.set_item(
        "min_price_increment_amount",
        columns.min_price_increment_amount.into_pyarray(py),
    )?;
    result.set_item(
        "unit_of_measure_qty",
        columns.unit_of_measure_qty.into_pyarray(py),
    )?;
    result.set_item(
        "contract_multiplier",
        columns.contract_multiplier.into_pyarray(py),
    )?;
    result.set_item("expiration", columns.expiration.into_pyarray(py))?;
    Ok(result)
}

fn mapping_columns(py: Python<'_>, columns: MappingColumns) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("instrument_id", columns.instrument_id.into_pyarray(py))?;
    result.set_item("symbol_in", columns.symbol_in)?;
    result.set_item("symbol_out", columns.symbol_out)?;
    result.set_item("start_ts", columns.start_ts.into_pyarray(py))?;
    result.set_item("end_ts", columns.end_ts.into_pyarray(py))?;
    Ok(result)
}
