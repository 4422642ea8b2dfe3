//! The engine from outside: any cut of the bars gives the same events, and the future changes none.

use clustercore_core::config::{Config, FIELDS, Kind, Value};
use clustercore_core::engine::{Columns, Engine, Step};
use clustercore_core::instrument::Instrument;
use clustercore_core::record::{Event, Frames};
use clustercore_core::session::{Interval, Session, Sessions};
use proptest::prelude::*;

const MINUTE: i64 = 60_000_000_000;
const TICK: i64 = 250_000_000;
const SESSION_BARS: i64 = 120;

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
            (_, Kind::Distance) => Value::Text("4 ticks".to_owned()),
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

/// Five-minute windows against the session so far, shorts on, thresholds low: trades happen.
fn lively() -> Config {
    let text = |word: &str| Value::Text(word.to_owned());
    config(&[
        ("baseline", "mode", text("session_to_date")),
        ("baseline", "min_bars", Value::Int(10)),
        ("cluster", "minutes", Value::Int(5)),
        ("cluster", "basis", text("window")),
        ("cluster", "threshold", Value::Float(1.05)),
        ("rank", "top_n", Value::Int(100)),
        ("profile", "start_minute", Value::Int(0)),
        ("profile", "end_minute", Value::Int(5)),
        ("profile", "source", text("close_volume")),
        ("momentum", "start_minute", Value::Int(-5)),
        ("momentum", "end_minute", Value::Int(0)),
        ("signal", "long_threshold", Value::Float(0.45)),
        ("signal", "short_threshold", Value::Float(0.55)),
        ("signal", "shorts", Value::Bool(true)),
        ("signal", "w_position", Value::Float(0.7)),
        ("retest", "enabled", Value::Bool(true)),
        ("retest", "test", text("touch")),
        ("retest", "timeout_minutes", Value::Int(30)),
        ("entry", "max_wait_minutes", Value::Int(5)),
        ("volatility", "minutes", Value::Int(480)),
        ("volatility", "min_minutes", Value::Int(20)),
        ("volatility", "atr_minutes", Value::Int(240)),
        ("volatility", "atr_min_minutes", Value::Int(10)),
        ("stop", "k", Value::Float(1.0)),
        ("target", "reward", Value::Float(1.5)),
        ("exit", "max_hold_minutes", Value::Int(20)),
        ("exit", "flatten_minutes", Value::Int(1)),
        ("account", "balance", Value::Float(50_000.0)),
        ("size", "base", Value::Float(1.0)),
        ("size", "max_contracts", Value::Int(3)),
    ])
}

fn engine() -> Engine {
    let sessions = (0..4)
        .map(|day| {
            let open = day * 24 * 60 * MINUTE;
            let close = open + SESSION_BARS * MINUTE;
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
    let mut engine =
        Engine::new(lively(), "id".to_owned(), instrument, sessions, MINUTE).expect("an engine");
    engine.symbol("ESZ5");
    engine
}

/// Turns small numbers into coherent bars on the tick grid, three sessions of them.
fn steps(moves: &[(i8, u8, u8, u16, bool)]) -> Vec<Step> {
    let mut price = 4000 * 4;
    let mut steps = Vec::new();
    for (place, (change, up, down, volume, present)) in (0_i64..).zip(moves) {
        let open = price;
        price += i64::from(*change);
        let (high, low) = (
            open.max(price) + i64::from(*up),
            open.min(price) - i64::from(*down),
        );
        let start = (place / SESSION_BARS) * 24 * 60 * MINUTE + (place % SESSION_BARS) * MINUTE;
        let bar = clustercore_core::bar::BarInput {
            start,
            open: open * TICK,
            high: high * TICK,
            low: low * TICK,
            close: price * TICK,
            volume: i64::from(*volume),
        };
        if *present {
            steps.push(Step {
                bar,
                symbol: 0,
                actionable: true,
                context: false,
            });
        }
    }
    steps
}

fn step_all(engine: &mut Engine, steps: &[Step]) -> Vec<Event> {
    let mut events = Vec::new();
    for step in steps {
        engine.step(step, &mut events).expect("a coherent bar");
    }
    events
}

fn run_all(engine: &mut Engine, steps: &[Step], frames: &mut Frames) {
    let column = |of: fn(&Step) -> i64| steps.iter().map(of).collect::<Vec<_>>();
    engine
        .run(
            &Columns {
                start: &column(|step| step.bar.start),
                open: &column(|step| step.bar.open),
                high: &column(|step| step.bar.high),
                low: &column(|step| step.bar.low),
                close: &column(|step| step.bar.close),
                volume: &column(|step| step.bar.volume),
                stretches: &[(0, 0)],
                context: None,
                actionable: None,
            },
            frames,
            || false,
        )
        .expect("coherent bars");
}

fn sorted(events: Vec<Event>) -> Frames {
    let mut frames = Frames::default();
    for event in events {
        clustercore_core::record::Sink::take(&mut frames, event);
    }
    frames
}

fn assert_same(left: &Frames, right: &Frames) {
    assert_eq!(left.clusters, right.clusters);
    assert_eq!(left.signals, right.signals);
    assert_eq!(left.orders, right.orders);
    assert_eq!(left.trades, right.trades);
    assert_eq!(left.equity, right.equity);
    assert_eq!(left.risk, right.risk);
}

fn market() -> impl Strategy<Value = Vec<Step>> {
    let bar = (
        -6_i8..=6,
        0_u8..4,
        0_u8..4,
        0_u16..400,
        proptest::bool::weighted(0.95),
    );
    proptest::collection::vec(bar, 3 * SESSION_BARS as usize).prop_map(|moves| steps(&moves))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_any_cut_gives_the_same_frames(steps in market(), cut in 0.0..1.0_f64) {
        let whole = sorted(step_all(&mut engine(), &steps));
        let place = (cut * steps.len() as f64) as usize;
        let mut cut_engine = engine();
        let mut frames = Frames::default();
        run_all(&mut cut_engine, &steps[..place], &mut frames);
        run_all(&mut cut_engine, &steps[place..], &mut frames);
        assert_same(&whole, &frames);
    }

    #[test]
    fn prop_the_future_changes_nothing(steps in market(), cut in 0.0..1.0_f64) {
        let place = (cut * steps.len() as f64) as usize;
        let whole = step_all(&mut engine(), &steps);
        let part = step_all(&mut engine(), &steps[..place]);
        prop_assert_eq!(&whole[..part.len()], &part[..]);
    }

    #[test]
    fn prop_closing_intervals_changes_nothing(steps in market()) {
        let mut quiet = engine();
        let mut silent = step_all(&mut quiet, &steps);
        // A bar without volume moves no time, so only a word closes the last intervals of both.
        quiet.advance(4 * 24 * 60 * MINUTE, &mut silent);
        let mut told = engine();
        let mut events = Vec::new();
        for step in &steps {
            told.advance(step.bar.start, &mut events);
            told.step(step, &mut events).expect("a coherent bar");
            told.advance(step.bar.start + MINUTE, &mut events);
        }
        told.advance(4 * 24 * 60 * MINUTE, &mut events);
        prop_assert_eq!(silent, events);
    }
}

#[test]
fn lively_markets_trade() {
    // The properties above would hold of an engine that never trades; this one does.
    let moves: Vec<(i8, u8, u8, u16, bool)> = (0..3 * SESSION_BARS)
        .map(|k| {
            let wave = (k * 7919 % 13 - 6) as i8;
            (
                wave,
                (k % 3) as u8,
                (k % 4) as u8,
                (50 + k * 31 % 300) as u16,
                true,
            )
        })
        .collect();
    let frames = sorted(step_all(&mut engine(), &steps(&moves)));
    assert!(
        frames.clusters.len() >= 10,
        "{} clusters",
        frames.clusters.len()
    );
    assert!(frames.trades.len() >= 5, "{} trades", frames.trades.len());
}

#[test]
fn a_refused_bar_leaves_the_engine_as_it_was() {
    let moves: Vec<_> = (0..200)
        .map(|k| ((k % 5) as i8 - 2, 1, 1, 100 + (k % 7) as u16 * 40, true))
        .collect();
    let steps = steps(&moves);
    let mut engine_with_fault = engine();
    let mut bad = steps.clone();
    bad[150].bar.high = bad[150].bar.low - TICK;
    let mut events = Vec::new();
    for step in &steps[..100] {
        engine_with_fault
            .step(step, &mut events)
            .expect("a coherent bar");
    }
    let column = |of: fn(&Step) -> i64| bad[100..].iter().map(of).collect::<Vec<_>>();
    let refused = engine_with_fault.run(
        &Columns {
            start: &column(|step| step.bar.start),
            open: &column(|step| step.bar.open),
            high: &column(|step| step.bar.high),
            low: &column(|step| step.bar.low),
            close: &column(|step| step.bar.close),
            volume: &column(|step| step.bar.volume),
            stretches: &[(0, 0)],
            context: None,
            actionable: None,
        },
        &mut Frames::default(),
        || false,
    );
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .starts_with("row 50, column high")
    );
    for step in &steps[100..] {
        engine_with_fault
            .step(step, &mut events)
            .expect("a coherent bar");
    }
    assert_eq!(events, step_all(&mut engine(), &steps));
}

#[test]
fn an_interrupted_run_leaves_the_engine_as_it_was() {
    let moves: Vec<_> = (0..200)
        .map(|k| ((k % 5) as i8 - 2, 1, 1, 100, true))
        .collect();
    let steps = steps(&moves);
    let mut stopped = engine();
    let refused = stopped.run(
        &Columns {
            start: &steps.iter().map(|step| step.bar.start).collect::<Vec<_>>(),
            open: &steps.iter().map(|step| step.bar.open).collect::<Vec<_>>(),
            high: &steps.iter().map(|step| step.bar.high).collect::<Vec<_>>(),
            low: &steps.iter().map(|step| step.bar.low).collect::<Vec<_>>(),
            close: &steps.iter().map(|step| step.bar.close).collect::<Vec<_>>(),
            volume: &steps.iter().map(|step| step.bar.volume).collect::<Vec<_>>(),
            stretches: &[(0, 0)],
            context: None,
            actionable: None,
        },
        &mut Frames::default(),
        || true,
    );
    assert_eq!(refused.unwrap_err().to_string(), "interrupted");
    assert_eq!(
        step_all(&mut stopped, &steps),
        step_all(&mut engine(), &steps)
    );
}
