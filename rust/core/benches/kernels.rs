//! The kernels over a driftless walk on the tick grid of ES, in bars a second on one core.

use std::hint::black_box;

use clustercore_core::config::{ProfileSource, Tie};
use clustercore_core::kernels::modal::rolling_modal_price;
use clustercore_core::kernels::{ProfileColumns, baseline};
use clustercore_core::profile::ProfileRule;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BARS: usize = 200_000;
const TICK: i64 = 250_000_000;
const MINUTE_NS: i64 = 60_000_000_000;

/// High, low, close and volume; a bar is four ticks wide in the mean, as a minute of ES is.
fn walk() -> [Vec<i64>; 4] {
    let mut state = 17_u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % below) as i64
    };
    let mut columns: [Vec<i64>; 4] = Default::default();
    let mut close = 16_000 * TICK;
    for _ in 0..BARS {
        let open = close;
        close += TICK * (draw(5) - 2);
        let (high, low) = (
            open.max(close) + TICK * draw(3),
            open.min(close) - TICK * draw(3),
        );
        let volume = 1 + draw(400) * draw(20);
        for (column, value) in columns.iter_mut().zip([high, low, close, volume]) {
            column.push(value);
        }
    }
    columns
}

fn kernels(criterion: &mut Criterion) {
    let [high, low, close, volume] = walk();
    let columns = ProfileColumns {
        high: &high,
        low: &low,
        close: &close,
        volume: &volume,
    };
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Elements(BARS as u64));
    let sources = [
        ("close", ProfileSource::Close),
        ("close_volume", ProfileSource::CloseVolume),
        ("range_volume", ProfileSource::RangeVolume),
    ];
    for (name, source) in sources {
        let rule = ProfileRule {
            source,
            tie: Tie::Middle,
            tick: TICK,
        };
        group.bench_function(format!("rolling_modal_price/{name}"), |bencher| {
            bencher.iter(|| rolling_modal_price(black_box(columns), 15, rule));
        });
    }
    let mut out = vec![0.0; BARS];
    group.bench_function("rolling_baseline", |bencher| {
        bencher.iter(|| baseline::rolling(black_box(&volume), 20, MINUTE_NS, &mut out));
    });
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
