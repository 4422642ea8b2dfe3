//! The extension module `clustercore._core`: conversion between Python and the crates, no formula.
mod config;
mod dbn;
mod engine;
mod errors;
mod frames;
mod kernels;
mod prices;
mod sessions;
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
    use crate::engine::PyEngine;
    #[pymodule_export]
    use crate::frames::record_fields;
    #[pymodule_export]
    use crate::kernels::{
        detect_clusters, match_retests, previous_session_baseline, rolling_atr_sigma,
        rolling_baseline, rolling_modal_price, rolling_true_range, rolling_volatility,
        session_to_date_baseline, time_of_day_baseline, true_range, volume_profile,
    };
    #[pymodule_export]
    use crate::prices::points_to_nanos;
    #[pymodule_export]
    use crate::statistics::{
        compute_statistics, group_trades, hash_columns, posterior, statistic_definitions,
    };
}
