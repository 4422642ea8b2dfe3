//! Errors of the core as Python exceptions, which are written in `clustercore.errors`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use clustercore_core::error::{ConfigError, DataError, Error};
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(crate) mod exceptions {
    pyo3::import_exception!(clustercore.errors, ConfigError);
    pyo3::import_exception!(clustercore.errors, DataError);
    pyo3::import_exception!(clustercore.errors, EngineBusy);
    pyo3::import_exception!(clustercore.errors, InternalError);
}

/// Returns a core error as its Python exception.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Config(error) => config_error(py, error),
        Error::Data(error) => data_error(py, error),
        other => exceptions::InternalError::new_err(other.to_string()),
    }
}

/// Returns a refused setting as its Python exception.
pub(crate) fn config_error(py: Python<'_>, error: &ConfigError) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let about = PyDict::new(py);
        about.set_item("field", &error.field)?;
        about.set_item("found", &error.found)?;
        about.set_item("expected", &error.expected)?;
        let class = py.get_type::<exceptions::ConfigError>();
        Ok(PyErr::from_value(
            class.call((&error.problem,), Some(&about))?,
        ))
    };
    build().unwrap_or_else(|failure| failure)
}

/// Returns refused market data as its Python exception.
pub(crate) fn data_error(py: Python<'_>, error: &DataError) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let about = PyDict::new(py);
        about.set_item("row", error.row)?;
        about.set_item("column", error.column)?;
        about.set_item("found", &error.found)?;
        about.set_item("expected", &error.expected)?;
        let class = py.get_type::<exceptions::DataError>();
        Ok(PyErr::from_value(
            class.call((&error.problem,), Some(&about))?,
        ))
    };
    build().unwrap_or_else(|failure| failure)
}

/// Runs a function of the core; a panic becomes `InternalError`.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                panic
                    .downcast_ref::<&str>()
                    .map(|words| (*words).to_owned())
            })
            .unwrap_or_else(|| "no message".to_owned());
        exceptions::InternalError::new_err(format!(
            "a fault inside the engine, please report it: {words}"
        ))
    })
}
