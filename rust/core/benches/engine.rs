//! The engine alone over a driftless walk on the tick grid: no Python, no frames, no statistics.

use clustercore_core::bar::BarInput;
use clustercore_core::config::{Config, FIELDS, Kind, Value};
use clustercore_core::engine::{Columns, Engine, Step};
use clustercore_core::instrument::Instrument;
use clustercore_core::record::{Event, Frames};
use clustercore_core::session::{Interval, Session, Sessions};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const MINUTE_NS: i64 = 60_000_000_000;
const TICK: i64 = 250_000_000;
const SESSIONS: i64 = 100;
const SESSION_BARS: i64 = 1_380;
const DAY_BARS: i64 = 1_440;

/// A complete configuration: the given settings, and for every other the first choice or the
/// smallest value that its range allows.
fn config(settings: &[(&str, &str, Value)]) -> Config {
    let mut sections: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    for field in FIELDS {
        let given = settings
            .iter()
            .find(|(section, name, _)| *section == field.section && *name == field.name);
        let value = match (given, field.kind) {
            (Some((_, _, value)), _) => value.clone(),
            _ if field.optional => Value::Null,
            (_, Kind::Bool) => Value::Bool(false),
            (_, Kind::Int) => Value::Int(field.min as i64),
            (_, Kind::Float) => Value::Float(field.min),
            (_, Kind::Choice) => Value::Text(field.choices[0].to_owned()),
            (_, Kind::Distance) => Value::Text("20 ticks".to_owned()),
            (_, Kind::Texts | Kind::Legs) => Value::List(vec![]),
        };
        match sections.iter_mut().find(|(name, _)| name == field.section) {
            Some((_, entries)) => entries.push((field.name.to_owned(), value)),
            None => sections.push((
                field.section.to_owned(),
                vec![(field.name.to_owned(), value)],
            )),
        }
    }
    Config::new(&sections).expect("a complete configuration")
}

/// Quarter hours against the previous session; the threshold decides how much there is to do.
fn quarter_hours(threshold: f64) -> Config {
    let text = |word: &str| Value::Text(word.to_owned());
    config(&[
        ("baseline", "mode", text("previous_session")),
        ("cluster", "minutes", Value::Int(15)),
        ("cluster", "basis", text("window")),
        ("cluster", "threshold", Value::Float(threshold)),
        ("rank", "hours", Value::Float(2.0)),
        ("profile", "start_minute", Value::Int(0)),
        ("profile", "end_minute", Value::Int(15)),
        ("profile", "source", text("close_volume")),
        ("momentum", "start_minute", Value::Int(-30)),
        ("momentum", "end_minute", Value::Int(0)),
        ("signal", "long_threshold", Value::Float(0.25)),
        ("signal", "short_threshold", Value::Float(0.75)),
        ("signal", "shorts", Value::Bool(true)),
        ("signal", "w_position", Value::Float(1.0)),
        ("retest", "enabled", Value::Bool(true)),
        ("retest", "test", text("touch")),
        ("retest", "timeout_minutes", Value::Int(30)),
        ("entry", "max_wait_minutes", Value::Int(5)),
        ("volatility", "minutes", Value::Int(480)),
        ("volatility", "min_minutes", Value::Int(60)),
        ("volatility", "atr_minutes", Value::Int(240)),
        ("volatility", "atr_min_minutes", Value::Int(30)),
        ("stop", "k", Value::Float(1.0)),
        ("target", "reward", Value::Float(2.0)),
        ("exit", "max_hold_minutes", Value::Int(60)),
        ("exit", "flatten_minutes", Value::Int(1)),
        ("account", "balance", Value::Float(50_000.0)),
        ("size", "base", Value::Float(1.0)),
        ("size", "max_contracts", Value::Int(3)),
    ])
}

/// Start, open, high, low, close and volume; a bar is four ticks wide in the mean, as a minute of
/// ES is, and one quarter of an hour in twelve is busy.
fn walk() -> [Vec<i64>; 6] {
    let mut state = 17_u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % below) as i64
    };
    let mut columns: [Vec<i64>; 6] = Default::default();
    let mut close = 16_000 * TICK;
    for day in 0..SESSIONS {
        let mut busy = 1;
        for bar in 0..SESSION_BARS {
            if bar % 15 == 0 {
                busy = if draw(12) == 0 { 4 } else { 1 };
            }
            let open = close;
            close += TICK * (draw(5) - 2);
            let high = open.max(close) + TICK * draw(3);
            let low = open.min(close) - TICK * draw(3);
            let start = (day * DAY_BARS + bar) * MINUTE_NS;
            let volume = busy * (1 + draw(400));
            for (column, value) in columns
                .iter_mut()
                .zip([start, open, high, low, close, volume])
            {
                column.push(value);
            }
        }
    }
    columns
}

fn engine(config: &Config) -> Engine {
    let sessions = (0..SESSIONS)
        .map(|day| {
            let open = day * DAY_BARS * MINUTE_NS;
            let close = open + SESSION_BARS * MINUTE_NS;
            Session {
                trade_date: day as i32,
                open,
                close,
                hours: vec![Interval {
                    start: open,
                    end: close,
                }],
                halts: vec![],
                new_york_offset_s: -18_000,
            }
        })
        .collect();
    let instrument = Instrument {
        root: "ES".to_owned(),
        tick_nanos: TICK,
        point_value: 50.0,
        commission: 2.5,
        margin: None,
    };
    let sessions = Sessions::new(sessions).expect("ascending sessions");
    let mut engine = Engine::new(
        config.clone(),
        "id".to_owned(),
        instrument,
        sessions,
        MINUTE_NS,
    )
    .expect("an engine");
    engine.symbol("ESZ5");
    engine
}

fn runs(criterion: &mut Criterion) {
    let [start, open, high, low, close, volume] = walk();
    let columns = Columns {
        start: &start,
        open: &open,
        high: &high,
        low: &low,
        close: &close,
        volume: &volume,
        stretches: &[(0, 0)],
        context: None,
        actionable: None,
    };
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(start.len() as u64));
    for (name, threshold) in [("no clusters", 1e6), ("clusters and trades", 2.0)] {
        let settings = quarter_hours(threshold);
        group.bench_function(format!("run/{name}"), |bencher| {
            bencher.iter_batched(
                || (engine(&settings), Frames::default()),
                |(mut engine, mut frames)| {
                    engine
                        .run(&columns, &mut frames, || false)
                        .expect("coherent bars");
                    (engine, frames)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function("step/clusters and trades", |bencher| {
        let settings = quarter_hours(2.0);
        bencher.iter_batched(
            || (engine(&settings), Vec::new()),
            |(mut engine, mut events): (Engine, Vec<Event>)| {
                for row in 0..start.len() {
                    let bar = BarInput {
                        start: start[row],
                        open: open[row],
                        high: high[row],
                        low: low[row],
                        close: close[row],
                        volume: volume[row],
                    };
                    let step = Step {
                        bar,
                        symbol: 0,
                        actionable: true,
                        context: false,
                    };
                    engine.step(&step, &mut events).expect("a coherent bar");
                    events.clear();
                }
                engine
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = runs
}
criterion_main!(benches);
