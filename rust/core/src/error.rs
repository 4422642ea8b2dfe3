//! What the core refuses. Every variant carries what is needed to name the fault; none is a panic.

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem} (found {found}, expected {expected})")]
pub struct ConfigError {
    /// Dotted name of the setting.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// The value given.
    pub found: String,
    /// What it may be.
    pub expected: String,
}

/// Market data that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}, column {column}: {problem} (found {found}, expected {expected})")]
pub struct DataError {
    /// Zero-based row of the input.
    pub row: usize,
    /// Name of the column.
    pub column: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What stood there.
    pub found: String,
    /// What may stand there.
    pub expected: String,
}

/// Everything the core refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A bar, a trade or a session table.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}
