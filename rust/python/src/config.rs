//! Settings across the border.

use clustercore_core::config::{Config, FIELDS, Kind, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::errors::{config_error, exceptions, guarded};

/// Returns every setting as a dictionary: section, name, kind, optional, choices, min, max, unit
/// and sentence, in the order of the reference.
#[pyfunction]
pub(crate) fn config_fields(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let fields = PyList::empty(py);
    for field in FIELDS {
        let row = PyDict::new(py);
        row.set_item("section", field.section)?;
        row.set_item("name", field.name)?;
        row.set_item("kind", kind_word(field.kind))?;
        row.set_item("optional", field.optional)?;
        row.set_item("choices", field.choices)?;
        let ranged = matches!(field.kind, Kind::Int | Kind::Float);
        row.set_item("min", ranged.then_some(field.min))?;
        row.set_item("max", ranged.then_some(field.max))?;
        row.set_item("unit", field.unit)?;
        row.set_item("sentence", field.sentence)?;
        fields.append(row)?;
    }
    Ok(fields)
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int => "int",
        Kind::Float => "float",
        Kind::Choice => "choice",
        Kind::Distance => "distance",
        Kind::Texts => "texts",
        Kind::Legs => "legs",
    }
}

/// Checks a complete configuration, a dictionary of sections.
///
/// Raises `ConfigError` with field, found and expected.
#[pyfunction]
pub(crate) fn check_config(sections: &Bound<'_, PyDict>) -> PyResult<()> {
    read_config(sections).map(|_| ())
}

/// Reads a configuration from a dictionary of sections.
pub(crate) fn read_config(sections: &Bound<'_, PyDict>) -> PyResult<Config> {
    let mut read = Vec::with_capacity(sections.len());
    for (name, settings) in sections {
        let name: String = name.extract()?;
        let settings = settings.cast::<PyDict>().map_err(|_| {
            exceptions::ConfigError::new_err(format!(
                "{name}: a section must be a table of settings"
            ))
        })?;
        let mut entries = Vec::with_capacity(settings.len());
        for (key, value) in settings {
            entries.push((key.extract()?, to_value(&value)?));
        }
        read.push((name, entries));
    }
    guarded(|| Config::new(&read))?.map_err(|error| config_error(sections.py(), &error))
}

fn to_value(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        Ok(Value::Null)
    } else if let Ok(flag) = value.cast::<PyBool>() {
        Ok(Value::Bool(flag.is_true()))
    } else if value.is_instance_of::<PyInt>() {
        // Beyond 64 bits a number is outside every range; as a float it is refused by name.
        value
            .extract()
            .map(Value::Int)
            .or_else(|_| value.extract().map(Value::Float))
    } else if value.is_instance_of::<PyFloat>() {
        value.extract().map(Value::Float)
    } else if value.is_instance_of::<PyString>() {
        value.extract().map(Value::Text)
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        value
            .try_iter()?
            .map(|item| to_value(&item?))
            .collect::<PyResult<_>>()
            .map(Value::List)
    } else if let Ok(table) = value.cast::<PyDict>() {
        table
            .iter()
            .map(|(key, item)| Ok((key.extract()?, to_value(&item)?)))
            .collect::<PyResult<_>>()
            .map(Value::Table)
    } else {
        Ok(Value::Text(value.repr()?.to_string()))
    }
}
