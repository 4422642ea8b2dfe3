//! The extension module `clustercore._core`: conversion between Python and the crates, no formula.
mod config;
mod dbn;
mod engine;
mod errors;
mod frames;
mod statistics;

use pyo3::prelude::*;

/// The native part of clustercore.
#[pymodule]
mod _core {
    /// Version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Changes whenever any result changes.
    #[pymodule_export]
    const ENGINE_VERSION: &str = clustercore_core::ENGINE_VERSION;

    #[pymodule_export]
    use crate::config::{check_config, config_fields};
    #[pymodule_export]
    use crate::dbn::decode_dbn;
    #[pymodule_export]
    use crate::engine::{PyEngine, points_to_nanos};
    #[pymodule_export]
    use crate::frames::record_fields;
    #[pymodule_export]
    use crate::statistics::{
        compute_statistics, group_trades, hash_columns, posterior, statistic_definitions,
    };
}
