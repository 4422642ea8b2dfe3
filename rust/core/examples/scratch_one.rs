//! scratch
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used)]
use clustercore_core::config::{ProfileSource, Tie};
use clustercore_core::kernels::{ProfileColumns, modal::rolling_modal_price};
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
    let reps: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let n = if reps == 1 { 200_000 } else { close.len() };
    let columns = ProfileColumns {
        high: &high[..n],
        low: &low[..n],
        close: &close[..n],
        volume: &volume[..n],
    };
    let which: usize = std::env::args().nth(2).map_or(9, |a| a.parse().unwrap());
    for (k, source) in [
        ProfileSource::CloseVolume,
        ProfileSource::RangeVolume,
        ProfileSource::Close,
    ]
    .into_iter()
    .enumerate()
    {
        if which < 9 && which != k {
            continue;
        }
        let rule = ProfileRule {
            source,
            tie: Tie::Middle,
            tick: 250_000_000,
        };
        let mut best = f64::MAX;
        for _ in 0..reps {
            let t = Instant::now();
            let r = rolling_modal_price(columns, 15, rule).unwrap();
            best = best.min(t.elapsed().as_secs_f64());
            std::hint::black_box(r);
        }
        println!(
            "{source:?}: {:.1} M/s  {:.2} ns",
            n as f64 / best / 1e6,
            best * 1e9 / n as f64
        );
    }
}
