//! Prices across the border: points outside, 1e-9 inside.

use clustercore_core::instrument::NANOS_PER_POINT;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::exceptions;

/// Turns prices in points into int64 1e-9, rounded to the nearest.
///
/// Raises `DataError` for a price that is not a finite number.
#[pyfunction]
pub(crate) fn points_to_nanos<'py>(
    py: Python<'py>,
    points: PyReadonlyArray1<'py, f64>,
    column: &str,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let points = points.as_slice()?;
    let (nanos, usable) = py.detach(|| {
        let mut nanos = Vec::with_capacity(points.len());
        let mut usable = true;
        for block in points.chunks(BLOCK) {
            usable &= block
                .iter()
                .fold(true, |usable, price| usable & (price.abs() < MOST_POINTS));
            if block
                .iter()
                .fold(true, |small, price| small & (price.abs() < SMALL_POINTS))
            {
                nanos.extend(block.iter().map(|price| small_to_nanos(*price)));
            } else {
                nanos.extend(
                    block
                        .iter()
                        .map(|price| (price * NANOS_PER_POINT).round_ties_even() as i64),
                );
            }
        }
        (nanos, usable)
    });
    if !usable {
        let row = points
            .iter()
            .position(|price| price.is_nan() || price.abs() >= MOST_POINTS);
        let row = row.unwrap_or(0);
        let about = PyDict::new(py);
        about.set_item("row", row)?;
        about.set_item("column", column)?;
        about.set_item("found", points[row].to_string())?;
        about.set_item("expected", "a price")?;
        let class = py.get_type::<exceptions::DataError>();
        return Err(PyErr::from_value(
            class.call(("not a price",), Some(&about))?,
        ));
    }
    Ok(nanos.into_pyarray(py))
}

/// Prices at once.
const BLOCK: usize = 1024;

/// Prices at or beyond this do not fit.
const MOST_POINTS: f64 = i64::MAX as f64 / NANOS_PER_POINT;

/// Prices below this become nanos of at most 51 bits.
const SMALL_POINTS: f64 = (1_u64 << 51) as f64 / NANOS_PER_POINT - 1.0;

/// Rounds to the nearest, halves to even, as the addition of 1.5 * 2^52 does: the whole number is
/// then in the low bits. Unlike a cast, this runs on several prices at once.
fn small_to_nanos(points: f64) -> i64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let shifted = points * NANOS_PER_POINT + SHIFT;
    shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i64
}
