//! The volume-cluster engine: pure, causal, without clock, input or output.
//!
//! [`engine::Engine`] turns bars into clusters, signals, orders, trades and equity. State is a fold
//! of the inputs in the order they were consumed, so any cut of them gives the same events.

/// Changes whenever any result changes.
pub const ENGINE_VERSION: &str = "1";

pub mod account;
pub mod bar;
pub mod baseline;
pub mod beta;
pub mod bootstrap;
pub mod carry;
pub mod check;
pub mod config;
pub mod detector;
pub mod engine;
pub mod error;
pub mod instrument;
pub mod kernels;
pub mod learning;
pub mod log;
pub mod order;
pub mod position;
pub mod profile;
pub mod record;
pub mod replay;
pub mod session;
pub mod signal;
pub mod sizing;
pub mod statistics;
pub mod trader;
pub mod volatility;
