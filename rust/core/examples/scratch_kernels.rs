//! scratch
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used)]
use clustercore_core::config::{ProfileSource, Tie};
use clustercore_core::kernels::{ProfileColumns, baseline, modal::rolling_modal_price};
use clustercore_core::profile::ProfileRule;
use std::time::Instant;
fn load(name: &str) -> Vec<i64> {
    std::fs::read(format!("/tmp/kern/{name}.i64"))
        .unwrap()
        .chunks_exact(8)
        .map(|c| i64::from_le_bytes(c.try_into().unwrap()))
        .collect()
}
fn main() {
    let (high, low, close, volume) = (load("high"), load("low"), load("close"), load("volume"));
    let columns = ProfileColumns {
        high: &high,
        low: &low,
        close: &close,
        volume: &volume,
    };
    let n = close.len();
    for source in [
        ProfileSource::CloseVolume,
        ProfileSource::RangeVolume,
        ProfileSource::Close,
    ] {
        for window in [15, 60, 480] {
            let rule = ProfileRule {
                source,
                tie: Tie::Middle,
                tick: 250_000_000,
            };
            let mut best = f64::MAX;
            let mut ties = 0;
            for _ in 0..9 {
                let t = Instant::now();
                let r = rolling_modal_price(columns, window, rule).unwrap();
                best = best.min(t.elapsed().as_secs_f64());
                ties = r.tied.iter().filter(|t| **t).count();
            }
            println!(
                "{source:?} {window}: {:.1} M/s  {:.2} ns, tied {:.3}",
                n as f64 / best / 1e6,
                best * 1e9 / n as f64,
                ties as f64 / n as f64
            );
        }
    }
    let mut out = vec![0.0; n];
    let mut best = f64::MAX;
    for _ in 0..9 {
        let t = Instant::now();
        baseline::rolling(&volume, 20, 60_000_000_000, &mut out).unwrap();
        best = best.min(t.elapsed().as_secs_f64());
    }
    println!("baseline rolling {:.1} M/s", n as f64 / best / 1e6);
}
